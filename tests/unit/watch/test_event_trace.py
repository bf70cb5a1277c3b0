import pytest

from fitkit import Callback, ConfigError, Event, EventTrace
from tests.unit.watch.helpers import FakeClock, data, make_loop

VALIDATE = ("VALIDATE", "Validate")


class Nanoseconds(FakeClock):
    """Every reading is one microsecond after the last."""

    def __call__(self):
        self.now += 1000
        return self.now


class Slow(Callback):
    """Take 7 microseconds at BATCH_END."""

    def __init__(self, clock):
        self.clock = clock

    def on_batch_end(self, state):
        self.clock.now += 7000


def test_what_ran_in_order():
    trace = EventTrace()
    make_loop(trace, num_samples=4).fit(1)
    rows = [(row.event.name, row.callback) for row in trace.rows if row.phase == "train"]
    region = [("ZERO_GRAD", "ZeroGrad"), ("FORWARD", "Forward"), ("LOSS", "TorchLoss")]
    assert rows[rows.index(region[0]) :][:3] == region
    assert [row.event for row in trace.rows] == sorted(
        [row.event for row in trace.rows if row.event is not Event.CLOSE]
    ) + [row.event for row in trace.rows if row.event is Event.CLOSE]


def test_where_and_how_long():
    clock = Nanoseconds()
    trace = EventTrace(clock=clock)
    make_loop(Slow(clock), trace).fit(2)
    rows = [row for row in trace.rows if row.callback == "Slow"]
    assert [(row.epoch, row.batch) for row in rows] == [(e, b) for e in range(2) for b in range(5)]
    assert {(row.event, row.phase, row.us, row.own_us) for row in rows} == {
        (Event.BATCH_END, "train", 8.0, 8.0)
    }
    assert ("train", "BATCH_END", "Slow", 10, 80.0) in trace.table()


def test_a_validation_pass_is_not_counted_twice():
    clock = Nanoseconds()
    trace = EventTrace(clock=clock)
    make_loop(Slow(clock), trace, val=data(8)).fit(1)
    rows = list(trace.rows)
    [outer] = [row for row in rows if row.callback == "Validate" and row.event is Event.VALIDATE]
    inner = [row for row in rows if row.phase == "val"]
    assert (outer.phase, outer.batch) == ("", None)
    assert outer.us > sum(row.us for row in inner)
    assert outer.own_us == outer.us - sum(row.us for row in inner)
    assert sum(row[-1] for row in trace.table()) == pytest.approx(
        sum(row.us for row in rows if row.phase != "val")
    )


def test_memory_is_bounded_and_the_table_counts_all():
    trace = EventTrace(max_rows=3)
    make_loop(trace).fit(2)
    assert len(trace.rows) == 3
    assert [calls for _, _, callback, calls, _ in trace.table() if callback == "Backward"] == [10]


def test_functions_have_their_name():
    trace = EventTrace()
    loop = make_loop(trace)

    @loop.on(Event.BATCH_END)
    def my_listener(state):
        pass

    loop.fit(1)
    assert "my_listener" in str(trace)


def test_the_text_is_a_table_with_the_longest_first():
    clock = Nanoseconds()
    trace = EventTrace(clock=clock)
    make_loop(Slow(clock), trace).fit(1)
    head, first, *rest = str(trace).splitlines()
    assert head.split() == ["phase", "event", "callback", "calls", "ms", "us/call", "share"]
    assert first.split()[:4] == ["train", "BATCH_END", "Slow", "5"]
    assert len(rest) > 10


def test_an_error_passes_through_and_leaves_its_row():
    trace = EventTrace()
    loop = make_loop(trace)

    @loop.on(Event.BATCH_END)
    def fail(state):
        raise KeyError("mine")

    with pytest.raises(KeyError) as caught:
        loop.fit(1)
    assert "raised in fail.on_batch_end at BATCH_END" in caught.value.__notes__
    assert "fail" in [row.callback for row in trace.rows]


def test_detach_ends_it():
    trace = EventTrace()
    loop = make_loop(trace)
    loop.fit(1)
    loop.detach(trace)
    num_rows = len(trace.rows)
    loop.fit(1)
    assert len(trace.rows) == num_rows


def test_two_loops_at_once():
    first, second = EventTrace(), EventTrace()
    inner = make_loop(second)
    outer = make_loop(first)
    outer.on(Event.EPOCH_END)(lambda state: inner.fit(2))
    outer.fit(1)
    counts = [
        [calls for _, _, name, calls, _ in trace.table() if name == "Backward"]
        for trace in (first, second)
    ]
    assert counts == [[5], [10]]


@pytest.mark.parametrize("max_rows", [0, -1, 1.5, None])
def test_what_is_no_size_is_refused(max_rows):
    with pytest.raises(ConfigError, match="max_rows"):
        EventTrace(max_rows)


def test_a_trace_attached_in_a_run_sees_the_epochs_after_it():
    trace = EventTrace()
    loop = make_loop(num_samples=4)

    @loop.on(Event.BATCH_END, once=True)
    def begin(state):
        loop.attach(trace)

    loop.fit(3)
    assert {row.epoch for row in trace.rows if row.event is Event.EPOCH_END} == {1, 2}


@pytest.mark.parametrize("max_uncounted", [1, 7, 10**6])
def test_when_calls_are_counted_makes_no_difference(monkeypatch, max_uncounted):
    monkeypatch.setattr("fitkit.watch.event_trace._MAX_UNCOUNTED", max_uncounted)
    clock = Nanoseconds()
    trace = EventTrace(clock=clock)
    make_loop(Slow(clock), trace, val=data(8)).fit(2)
    calls = len(trace.rows)
    assert sum(row[3] for row in trace.table()) == calls
    assert sum(row[4] for row in trace.table()) == sum(row.own_us for row in trace.rows)
    [(num_calls, own_us)] = [row[3:] for row in trace.table() if row[1:3] == VALIDATE]
    assert num_calls == 2  # it goes on while those within it are counted
    inner_us = sum(row.us for row in trace.rows if row.phase == "val")
    outer_us = sum(row.us for row in trace.rows if (row.event.name, row.callback) == VALIDATE)
    assert own_us == outer_us - inner_us


def test_a_hook_that_is_running_has_no_time_yet():
    trace = EventTrace()
    loop, seen = make_loop(trace, num_samples=4), []
    loop.on(Event.BATCH_END)(lambda state: seen.append(trace.rows[-1].us))
    loop.fit(1)
    assert seen == [0.0]
    assert [row.us > 0 for row in trace.rows if row.event is Event.BATCH_END] == [True] * 2
