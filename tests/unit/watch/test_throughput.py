import time

import numpy as np
import pytest

from fitkit import Callback, ConfigError, Event, Phase, Throughput
from tests.unit.watch.helpers import (
    FakeClock,
    Takes,
    counted_syncs,
    data,
    make_loop,
    validate_every,
)

NAMES = ["samples_per_s", "step_ms", "step_ms_p95", "data_wait_share"]


class Waits(Callback):
    """Say that half a second of every batch went by waiting."""

    phases = frozenset({Phase.TRAIN})

    def on_batch_begin(self, state):
        state.data_wait_s = 0.5 * (state.batch_index + 1)


def measure(seconds, *, epochs=1, num_samples=20, val=None, every_val=None, **kwargs):
    """Fit with steps that take `seconds`; return the loop and its history."""
    clock = FakeClock()
    loop = make_loop(
        Throughput(clock=clock, **kwargs),
        num_samples=num_samples,
        val=val,
        first=[Takes(clock, seconds, val=50.0), Waits()],
    )
    if every_val:
        validate_every(loop, every_val)
    return loop, loop.fit(epochs)


def logged(history, epoch=0):
    return [history.rows[epoch].get(f"speed/{name}") for name in NAMES]


def test_values_by_hand():
    seconds = [2.0, 1.0, 4.0, 1.0, 2.0]
    _, history = measure(seconds, num_samples=18, warmup=0)
    expected = [18 / 10, 2000.0, 1e3 * np.quantile(seconds, 0.95), 2.5 / 10]
    assert logged(history) == pytest.approx(expected)


def test_warmup_is_left_out_once_per_fit():
    seconds = [100.0, 100.0, 2.0, 2.0, 2.0] + [4.0] * 5 + [100.0, 100.0, 1.0, 1.0, 1.0]
    loop, history = measure(seconds, epochs=2, warmup=2)
    loop.fit(1)
    assert logged(history) == pytest.approx([2.0, 2000.0, 2000.0, 0.25])
    assert logged(history, 1) == pytest.approx([1.0, 4000.0, 4000.0, 0.125])
    assert logged(history, 2) == pytest.approx([4.0, 1000.0, 1000.0, 0.5])


def test_an_epoch_of_warmup_has_no_speed():
    _, history = measure(1.0, epochs=2, warmup=5)
    assert logged(history) == [None] * 4
    assert logged(history, 1) == pytest.approx([4.0, 1000.0, 1000.0, 0.5])


@pytest.mark.parametrize("every_val", [None, 1, 2])
def test_validation_is_not_counted(every_val):
    loop, history = measure(2.0, epochs=2, val=data(12), every_val=every_val, warmup=0)
    for epoch in range(2):
        assert logged(history, epoch) == pytest.approx([2.0, 2000.0, 2000.0, 0.25])


def test_an_evaluation_before_the_end_of_the_step_is_not_counted():
    clock = FakeClock()
    loop = make_loop(val=data(12), first=[Takes(clock, 2.0, val=50.0)])
    loop.on(Event.BATCH_END)(lambda state: loop.evaluate())
    loop.attach(Throughput(warmup=0, clock=clock))
    history = loop.fit(1)
    assert logged(history)[:3] == pytest.approx([2.0, 2000.0, 2000.0])


def test_what_other_callbacks_do_is_counted():
    clock = FakeClock()
    loop = make_loop(Throughput(warmup=0, clock=clock), first=[Takes(clock, 1.0)])

    @loop.on(Event.BATCH_END)
    def slow(state):
        clock.now += 1.0

    history = loop.fit(2)
    for epoch in range(2):  # what comes after the last step is not timed
        assert logged(history, epoch)[0] == pytest.approx(20 / 9)


def test_a_window_is_logged_when_it_is_over():
    clock = FakeClock()
    seconds = [1.0, 1.0, 2.0, 2.0, 4.0]
    loop = make_loop(Throughput(every=2, warmup=0, clock=clock), first=[Takes(clock, seconds)])
    seen = []
    loop.on(Event.BATCH_END)(lambda state: seen.append(state.logs.get("speed/samples_per_s")))
    history = loop.fit(1)
    assert seen == [None, 4.0, 4.0, 2.0, 2.0]
    assert logged(history)[0] == 2.0


def test_each_window_has_its_own_share_of_waiting():
    clock = FakeClock()
    watchers = [Takes(clock, [1.0, 1.0, 2.0, 2.0, 4.0]), Waits()]
    loop = make_loop(Throughput(every=2, warmup=0, clock=clock), first=watchers)
    seen = []
    loop.on(Event.BATCH_END)(lambda state: seen.append(state.logs.get("speed/data_wait_share")))
    history = loop.fit(1)
    assert seen == [None, 0.5, 0.5, 0.25, 0.25]
    assert logged(history)[3] == 0.25


def test_a_long_window_is_read_in_parts(monkeypatch):
    monkeypatch.setattr("fitkit.watch.throughput._MAX_UNREAD", 2)
    _, history = measure([2.0, 1.0, 4.0, 1.0, 2.0], warmup=0)
    assert logged(history) == pytest.approx([2.0, 2000.0, 3600.0, 0.25])


def test_two_at_once_and_the_next_fit_after_an_error():
    clock = FakeClock()
    both = [Throughput(warmup=0, clock=clock), Throughput(every=2, warmup=0, clock=clock)]
    loop = make_loop(*both, val=data(8), first=[Takes(clock, 2.0)])
    failing = loop.on(Event.BATCH_END, phases=["val"])(lambda state: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        loop.fit(1)
    failing.remove()
    clock.now += 1000
    assert logged(loop.fit(1))[:1] == [2.0]


def test_no_syncs(monkeypatch):
    loop = make_loop(Throughput(every=2, warmup=1))
    with counted_syncs(monkeypatch) as syncs:
        loop.fit(1)
    assert syncs == ["tolist"]  # the metrics of the pass


def test_it_agrees_with_another_clock():
    loop = make_loop(Throughput(warmup=2), num_samples=120)
    times = []

    @loop.on(Event.BATCH_END)
    def sleep(state):
        times.append(time.perf_counter())
        time.sleep(0.005)

    history = loop.fit(1)
    # The median, because the machine may pause this process between the two clocks.
    assert logged(history)[1] == pytest.approx(1e3 * np.median(np.diff(times[1:])), rel=0.03)
    assert logged(history)[0] == pytest.approx(4 * 28 / (times[-1] - times[1]), rel=0.2)


@pytest.mark.parametrize(
    "argument", [{"every": 0}, {"every": "now"}, {"warmup": -1}, {"warmup": 1.5}]
)
def test_what_is_out_of_range_is_refused(argument):
    with pytest.raises(ConfigError, match=next(iter(argument))):
        Throughput(**argument)
