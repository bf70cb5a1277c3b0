"""The history: host values only, one row per epoch, whoever logged them and when."""

import pytest
import torch

from fitkit import Callback, Event, Phase
from fitkit.loop import history
from tests.unit.loop.helpers import NUM_BATCHES, loader, make_loop


class Puts(Callback):
    """Writes into `state.logs` at one event."""

    def __init__(self, event, value):
        self.event, self.value = event, value

    def on_batch_end(self, state):
        self.put(Event.BATCH_END, state)

    def on_epoch_end(self, state):
        self.put(Event.EPOCH_END, state)

    def put(self, event, state):
        if event is self.event:
            state.logs["mine"] = self.value(state)


@pytest.mark.parametrize("event", [Event.BATCH_END, Event.EPOCH_END])
def test_a_tensor_in_the_logs_becomes_a_number_in_the_history(event):
    loss = torch.nn.Parameter(torch.tensor(1.5))
    loop = make_loop(Puts(event, lambda state: loss * (state.epoch + 1)))
    rows = loop.fit(epochs=2).rows
    assert [row["mine"] for row in rows] == [1.5, 3.0]
    assert {type(value) for row in rows for value in row.values()} == {float, int}


def test_that_the_conversion_is_what_keeps_tensors_out(monkeypatch):
    monkeypatch.setattr(history, "_numbers", dict)
    row = make_loop(Puts(Event.BATCH_END, lambda state: state.loss)).fit(epochs=1).rows[0]
    assert isinstance(row["mine"], torch.Tensor)


def test_a_tensor_of_several_values_is_refused():
    loop = make_loop(Puts(Event.BATCH_END, lambda state: torch.ones(2)))
    with pytest.raises(TypeError, match=r"state\.logs\['mine'\].*\(2,\)(.|\n)*state\.log\("):
        loop.fit(epochs=1)


def test_the_row_is_there_at_epoch_end_and_takes_what_is_logged_there():
    seen = []

    class Look(Callback):
        def on_epoch_end(self, state):
            seen.append(dict(loop.history.rows[-1]))
            state.logs["late"] = state.epoch + 0.5

    loop = make_loop(Look())
    loop.on(Event.BATCH_END)(lambda state: state.request(Event.SAVE))  # SAVE in mid-pass, too
    rows = loop.fit(epochs=3).rows
    assert [row["epoch"] for row in seen] == [0, 1, 2]
    assert [row["late"] for row in rows] == [0.5, 1.5, 2.5]
    assert [row["num_updates"] for row in rows] == [NUM_BATCHES, 2 * NUM_BATCHES, 3 * NUM_BATCHES]


def test_a_pass_that_is_cut_short_leaves_the_row_before_it_alone():
    loop = make_loop()
    whole = dict(loop.fit(epochs=1).rows[0])
    loop.on(Event.EPOCH_BEGIN)(lambda state: state.logs.update(begun=1.0))
    rows = loop.fit(max_steps=2).rows
    assert rows[0] == whole
    assert (rows[1]["begun"], rows[1]["num_updates"]) == (1.0, NUM_BATCHES + 2)
    loop.on(Event.PASS_BEGIN)(lambda state: state.request_stop("at once"))
    assert loop.fit(epochs=1).rows == rows


def requested(event, *, at, epochs=2):
    """What fires of VALIDATE, EPOCH_END, SAVE, and the updates at which validation passes begin."""
    loop, fired = make_loop(val=loader(2)), []
    validate = next(c for c in loop.callbacks if type(c).__name__ == "Validate")
    validate._interval.count = 100
    loop.on(Event.PASS_BEGIN, phases=[Phase.VAL])(lambda s: fired.append(("pass", s.num_updates)))
    for each in (Event.EPOCH_END, Event.SAVE):
        loop.on(each)(lambda s, each=each: fired.append((each.name, s.num_updates)))
    loop.on(at, when=lambda s: s.num_epochs < 2)(lambda state: state.request(event))
    loop.fit(epochs=epochs)
    return loop, fired


def test_a_validation_requested_at_epoch_end_is_served_there_and_in_the_history():
    loop, fired = requested(Event.VALIDATE, at=Event.EPOCH_END, epochs=3)
    assert fired == [
        *[("EPOCH_END", 4), ("pass", 4), ("SAVE", 4)],
        *[("EPOCH_END", 8), ("SAVE", 8), ("EPOCH_END", 12), ("SAVE", 12)],
    ]
    assert ["val_loss" in row for row in loop.history.rows] == [True, False, False]


def test_a_validation_requested_at_pass_end_is_served_once_in_its_own_place():
    _, fired = requested(Event.VALIDATE, at=Event.PASS_END, epochs=3)
    assert fired == [
        *[("pass", 4), ("EPOCH_END", 4), ("SAVE", 4), ("pass", 8), ("EPOCH_END", 8), ("SAVE", 8)],
        *[("EPOCH_END", 12), ("SAVE", 12)],
    ]


@pytest.mark.parametrize("at", [Event.PASS_END, Event.VALIDATE, Event.EPOCH_END])
def test_a_save_requested_at_the_end_of_an_epoch_is_the_one_that_comes_anyway(at):
    _, fired = requested(Event.SAVE, at=at)
    assert fired == [("EPOCH_END", 4), ("SAVE", 4), ("EPOCH_END", 8), ("SAVE", 8)]


def test_a_request_at_save_waits_for_the_next_batch():
    _, fired = requested(Event.VALIDATE, at=Event.SAVE)
    assert [updates for what, updates in fired if what == "pass"] == [5]


def test_the_history_shows_what_it_holds():
    loop = make_loop()
    assert repr(loop.history) == "History(0 rows: empty)"
    assert repr(loop.fit(epochs=2)) == "History(2 rows: lr, loss, epoch, num_updates)"
