"""When fit ends: epochs, updates, seconds; whichever comes first, and per call."""

import pytest

from fitkit import Event
from tests.unit.loop.helpers import NUM_BATCHES, make_loop, recorder

AFTER_A_CUT_PASS = ["PASS_END", "SAVE", "FIT_END", "CLOSE"]


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still unless it is set."""
    now = [1000.0]
    monkeypatch.setattr("fitkit.loop.state.time.perf_counter", lambda: now[0])
    return now


def ending(*, of_pass=("PASS_END", "VALIDATE", "EPOCH_END", "SAVE", "FIT_END", "CLOSE")):
    return recorder(*(Event[name] for name in of_pass))


def test_epochs():
    loop = make_loop()
    loop.fit(epochs=3)
    assert (loop.state.epoch, loop.state.num_epochs) == (3, 3)
    assert loop.state.num_batches == 3 * NUM_BATCHES
    assert loop.state.stop_reason is None


def test_max_steps_cuts_the_pass():
    heard = ending()
    loop = make_loop(heard)
    loop.fit(max_steps=2)
    assert (loop.state.num_updates, loop.state.num_epochs) == (2, 0)
    assert heard.heard == AFTER_A_CUT_PASS
    assert "max_steps" in loop.state.stop_reason


def test_max_steps_at_the_end_of_an_epoch_completes_it():
    heard = ending()
    loop = make_loop(heard)
    loop.fit(max_steps=NUM_BATCHES)
    assert (loop.state.num_updates, loop.state.num_epochs) == (NUM_BATCHES, 1)
    assert heard.heard == ["PASS_END", "VALIDATE", "EPOCH_END", "SAVE", "FIT_END", "CLOSE"]


def test_whichever_comes_first():
    loop = make_loop()
    loop.fit(epochs=1, max_steps=100)
    assert loop.state.num_batches == NUM_BATCHES
    loop.fit(epochs=100, max_steps=3)
    assert loop.state.num_batches == NUM_BATCHES + 3


def test_max_time(clock):
    loop = make_loop()

    @loop.on(Event.BATCH_BEGIN)
    def take_ten_seconds(state):
        clock[0] += 10

    loop.fit(max_time=25)
    assert loop.state.num_batches == 3
    assert "max_time" in loop.state.stop_reason
    loop.fit(max_time=10)  # seconds count from the beginning of each call
    assert loop.state.num_batches == 4


def test_calls_go_on_where_the_last_one_ended():
    loop = make_loop()
    loop.fit(epochs=1)
    loop.fit(max_steps=2)
    loop.fit(epochs=2)
    assert loop.state.num_updates == NUM_BATCHES + 2 + 2 * NUM_BATCHES
    assert [row["num_updates"] for row in loop.history.rows] == [4, 6, 10, 14]
    assert [row["epoch"] for row in loop.history.rows] == [0, 1, 1, 2]


def test_a_stop_of_the_last_call_does_not_stop_the_next():
    loop = make_loop()
    loop.on(Event.BATCH_END, once=True)(lambda state: state.request_stop("enough"))
    loop.fit(epochs=1)
    assert (loop.state.num_batches, loop.state.stop_reason) == (1, "enough")
    loop.fit(epochs=1)
    assert loop.state.num_batches == 1 + NUM_BATCHES
    assert loop.state.stop_reason is None


def test_stop_between_passes():
    heard = ending()
    loop = make_loop(heard)
    loop.on(Event.EPOCH_END, once=True)(lambda state: state.request_stop("converged"))
    loop.fit(epochs=5)
    assert loop.state.num_epochs == 1
    assert heard.heard == ["PASS_END", "VALIDATE", "EPOCH_END", "SAVE", "FIT_END", "CLOSE"]


def test_stop_before_the_first_batch():
    heard = recorder(Event.BATCH_BEGIN, Event.PASS_END, Event.EPOCH_END, Event.FIT_END)
    loop = make_loop(heard)
    loop.on(Event.FIT_BEGIN)(lambda state: state.request_stop("not today"))
    loop.fit(epochs=1)
    assert heard.heard == ["FIT_END"]


def test_requests_are_served_after_the_batch_and_once():
    heard = recorder(Event.BATCH_END, Event.VALIDATE, Event.SAVE)
    loop = make_loop(heard)

    @loop.on(Event.BATCH_BEGIN, when=lambda state: state.batch_index == 1)
    def ask(state):
        state.request(Event.SAVE)
        state.request(Event.VALIDATE)

    loop.fit(epochs=1)
    end = ["BATCH_END"]
    assert heard.heard == [*end * 2, "VALIDATE", "SAVE", *end * 2, "VALIDATE", "SAVE"]
