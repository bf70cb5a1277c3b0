import pytest
import torch

from fitkit import Phase, State
from fitkit.watch.stopwatch import Stopwatch
from tests.unit.watch.helpers import FakeClock


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def watch(clock):
    watch = Stopwatch(clock)
    watch.clear(torch.device("cpu"))
    return watch


def in_phase(phase):
    state = State(torch.nn.Linear(1, 1), device=torch.device("cpu"))
    state.phase = phase
    return state


def test_laps_follow_one_another(watch, clock):
    watch.enter(in_phase(Phase.TRAIN))
    for seconds in (1, 2, 4):
        clock.now += seconds
        watch.lap()
    assert len(watch) == 3
    assert watch.read() == [1, 2, 4]
    clock.now += 8
    watch.lap()
    assert watch.read() == [8]


def test_other_passes_are_left_out_of_the_lap_they_interrupt(watch, clock):
    watch.enter(in_phase(Phase.TRAIN))
    clock.now += 1
    for phase in (Phase.VAL, Phase.PREDICT):
        watch.enter(in_phase(phase))
        clock.now += 100
        watch.enter(in_phase(Phase.VAL))
        clock.now += 1000
        watch.leave()
        clock.now += 100
        watch.leave()
        clock.now += 2
    watch.lap()
    assert watch.read() == [5]


def test_it_stands_still_between_passes(watch, clock):
    for num_laps in (0, 1):
        watch.enter(in_phase(Phase.TRAIN))
        clock.now += 1
        assert num_laps == 0 or watch.lap() == 1
        watch.leave()
        clock.now += 100
        assert watch.lap() == 0
    assert watch.read() == [2]
    assert watch.read() == []


def test_a_pause_between_the_last_lap_and_reading_it_is_left_out_of_the_next_one(watch, clock):
    watch.enter(in_phase(Phase.TRAIN))
    clock.now += 1
    watch.lap()
    watch.enter(in_phase(Phase.VAL))
    clock.now += 100
    watch.leave()
    clock.now += 2
    assert watch.read() == [1]
    clock.now += 4
    watch.lap()
    assert watch.read() == [6]


def test_restart_forgets_what_was_measured(watch, clock):
    watch.enter(in_phase(Phase.TRAIN))
    clock.now += 1
    watch.lap()
    clock.now += 2
    watch.restart()
    clock.now += 4
    watch.lap()
    assert watch.read() == [4]


@pytest.mark.gpu
def test_cuda_events_time_the_device_and_not_the_host():
    device = torch.device("cuda")
    watch, state = Stopwatch(lambda: 0.0), in_phase(Phase.TRAIN)
    watch.clear(device)
    watch.enter(state)
    for cycles in (10**8, 2 * 10**8):
        torch.cuda._sleep(cycles)
        watch.lap()
    first, second = watch.read()
    assert 1.8 < second / first < 2.2
