"""Rates computed ahead are those of their steps; a function of the user is asked step by step."""

import pytest

from fitkit import Cosine, OneCycle, Warmup, WarmupStableDecay
from fitkit.tune.rates_of_steps import RatesOfSteps
from fitkit.tune.schedules import is_pure

STEPS = [0, 1, 2, 63, 64, 65, 200, 129, 5, 1000]  # also where a run has jumped


@pytest.mark.parametrize("ahead", [True, False])
def test_every_step_has_its_own(ahead):
    schedule = Cosine(0.3, steps=500, warmup=7)
    rates = RatesOfSteps(ahead=ahead)
    rates.scale([1.0, 0.1])
    for step in STEPS:
        assert rates.of(step, schedule) == [schedule(step), schedule(step) * 0.1]


def test_other_ratios_hold_from_the_next_step_on():
    rates = RatesOfSteps(ahead=True)
    for ratios in ([1.0, 0.1], [1.0, 0.5]):
        rates.scale(ratios)
        assert rates.of(3, float) == [3.0, 3.0 * ratios[1]]  # what was computed ahead is forgotten


def test_only_what_depends_on_the_step_alone_is_asked_ahead():
    asked = []

    def schedule(step):
        asked.append(step)
        return 1.0

    rates = RatesOfSteps(ahead=is_pure(schedule))
    rates.scale([1.0])
    for step in range(3):
        rates.of(step, schedule)
    assert asked == [0, 1, 2]
    assert not is_pure(Warmup(1.0, steps=2, then=schedule))
    for pure in (
        Cosine(1.0, steps=9),
        OneCycle(1.0, steps=9),
        WarmupStableDecay(1.0, steps=9, warmup=1, decay=2),
        Warmup(1.0, steps=2, then=Cosine(1.0, steps=9)),
    ):
        assert is_pure(pure)
