import time

import numpy as np
import pytest

from fitkit import Benchmark, ConfigError, Event
from tests.unit.watch.helpers import (
    FakeClock,
    Takes,
    counted_syncs,
    data,
    make_loop,
    validate_every,
)


def test_values_by_hand():
    clock = FakeClock()
    seconds = [100.0, 100.0, *[1.0, 1.0], *[2.0, 2.0], *[1.0, 4.0]]
    benchmark = Benchmark(steps=2, warmup=2, repeats=3, clock=clock)
    loop = make_loop(benchmark, num_samples=1000, first=[Takes(clock, seconds)])
    loop.fit(100)
    result = benchmark.result
    assert result.seconds == (2.0, 4.0, 5.0)
    speeds, step_ms = [8 / 2, 8 / 4, 8 / 5], [1000, 2000, 2500]
    assert result.samples_per_s == 2.0
    assert result.samples_per_s_p5 == pytest.approx(np.percentile(speeds, 5))
    assert result.samples_per_s_p95 == pytest.approx(np.percentile(speeds, 95))
    assert result.step_ms == 2000
    assert result.step_ms_p5 == pytest.approx(np.percentile(step_ms, 5))
    assert result.step_ms_p95 == pytest.approx(np.percentile(step_ms, 95))
    assert (result.steps, result.warmup, result.num_samples, result.device) == (2, 2, 24, "cpu")
    assert (
        str(result)
        .splitlines()[1]
        .startswith("median of 3 windows of 2 steps after 2 warm-up steps on cpu; ")
    )


def test_it_stops_the_run_when_it_is_done():
    loop = make_loop(Benchmark(steps=4, warmup=3, repeats=2), num_samples=12)
    loop.fit(100)
    assert loop.state.num_updates == 11
    assert loop.state.stop_reason == "benchmark: 2 windows of 4 steps measured"


@pytest.mark.parametrize("every_val", [None, 1, 2])
def test_windows_go_on_over_epochs_and_leave_validation_out(every_val):
    clock = FakeClock()
    benchmark = Benchmark(steps=7, warmup=1, repeats=2, clock=clock)
    first = [Takes(clock, 2.0, val=50.0)]
    loop = make_loop(benchmark, val=data(12), num_samples=12, first=first)
    if every_val:
        validate_every(loop, every_val)
    loop.fit(100)
    assert benchmark.result.seconds == (14.0, 14.0)


def test_a_run_that_is_too_short_has_no_result():
    benchmark = Benchmark(steps=4, warmup=3, repeats=2)
    make_loop(benchmark).fit(2)
    with pytest.raises(RuntimeError, match="10 of 11 steps") as error:
        _ = benchmark.result
    assert "max_steps=11" in str(error.value)


def test_it_can_be_run_again():
    clock = FakeClock()
    benchmark = Benchmark(steps=2, warmup=0, repeats=2, clock=clock)
    loop = make_loop(benchmark, first=[Takes(clock, [1.0] * 4 + [2.0] * 4)])
    loop.fit(9)
    assert benchmark.result.seconds == (2.0, 2.0)
    loop.fit(9)
    assert benchmark.result.seconds == (4.0, 4.0)


def test_it_agrees_with_another_clock():
    benchmark = Benchmark(steps=20, warmup=5, repeats=7)
    loop = make_loop(benchmark, num_samples=32)
    times = []

    @loop.on(Event.BATCH_END)
    def look(state):
        times.append(time.perf_counter())
        time.sleep(0.003)

    loop.fit(100)
    outside = np.diff(times[4::20])
    # The median, because the machine may pause this process between the two clocks.
    assert np.median(benchmark.result.seconds / outside) == pytest.approx(1, rel=0.03)
    assert benchmark.result.samples_per_s == pytest.approx(80 / np.median(outside), rel=0.03)


def test_no_syncs(monkeypatch):
    loop = make_loop(Benchmark(steps=2, warmup=1, repeats=2))
    with counted_syncs(monkeypatch) as syncs:
        loop.fit(1)
    assert syncs == ["tolist"]  # the metrics of the pass


def test_two_at_once():
    clock = FakeClock()
    short = Benchmark(steps=2, warmup=0, repeats=2, clock=clock)
    long = Benchmark(steps=2, warmup=4, repeats=2, clock=clock)
    make_loop(short, long, first=[Takes(clock, 1.0)]).fit(9)
    assert short.result.seconds == (2.0, 2.0)
    with pytest.raises(RuntimeError, match="4 of 8 steps"):
        _ = long.result


@pytest.mark.parametrize("argument", [{"steps": 0}, {"repeats": 0}, {"warmup": -1}, {"steps": 1.5}])
def test_what_is_out_of_range_is_refused(argument):
    with pytest.raises(ConfigError, match=next(iter(argument))):
        Benchmark(**argument)
