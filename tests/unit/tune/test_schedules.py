"""The ready-made schedules give the values of their formulas, and those of torch and Keras."""

import math

import keras
import pytest
import torch

from fitkit import ConfigError, Cosine, OneCycle, Warmup, WarmupStableDecay


def torch_rates(make, num_steps, rate=0.1):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)
    scheduler = make(optimizer)
    rates = []
    for _ in range(num_steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_a_warm_up_rises_linearly_and_hands_over():
    assert [Warmup(1.0, steps=3)(k) for k in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    then = Warmup(1.0, steps=2, then=lambda k: 10.0 + k)
    assert [then(k) for k in (1, 2, 3)] == [2 / 3, 10.0, 11.0]


def test_a_cosine_is_that_of_torch_and_keras():
    schedule = Cosine(0.1, steps=20, end=0.01)
    values = [schedule(k) for k in range(20)]
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR
    expected = torch_rates(lambda o: scheduler(o, T_max=20, eta_min=0.01), 20)
    assert values == pytest.approx(expected, rel=1e-12)
    decay = keras.optimizers.schedules.CosineDecay(0.1, 20, alpha=0.1)
    assert values == pytest.approx([float(decay(k)) for k in range(20)], rel=1e-5)
    assert schedule(20) == schedule(1000) == 0.01


def test_a_cosine_after_a_warm_up():
    schedule = Cosine(1.0, steps=12, warmup=4)
    assert [schedule(k) for k in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert schedule(8) == pytest.approx(0.5)
    assert schedule(12) == pytest.approx(0.0, abs=1e-12)


def test_one_cycle_is_that_of_torch():
    schedule = OneCycle(0.5, steps=40, rise=0.25)
    one_cycle = torch.optim.lr_scheduler.OneCycleLR

    def make(optimizer):
        return one_cycle(optimizer, 0.5, total_steps=40, pct_start=0.25, cycle_momentum=False)

    assert [schedule(k) for k in range(40)] == pytest.approx(torch_rates(make, 40), rel=1e-9)
    assert schedule(100) == pytest.approx(0.5 / 25 / 1e4)


def test_warm_up_stable_decay():
    schedule = WarmupStableDecay(1.0, steps=10, warmup=3, decay=4, end=0.2)
    expected = [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2, 0.2]
    assert [schedule(k) for k in range(12)] == pytest.approx(expected)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Cosine(0.0, steps=10),
        lambda: Cosine(math.nan, steps=10),
        lambda: Cosine(True, steps=10),
        lambda: Cosine(1.0, steps=0),
        lambda: Cosine(1.0, steps=10, warmup=10),
        lambda: Cosine(1.0, steps=10, warmup=-1),
        lambda: Cosine(1.0, steps=10, warmup=1.5),
        lambda: Warmup(1.0, steps=1.5),
        lambda: OneCycle(1.0, steps=3),
        lambda: OneCycle(1.0, steps=30, rise=1.0),
        lambda: WarmupStableDecay(1.0, steps=10, warmup=6, decay=6),
        lambda: WarmupStableDecay(1.0, steps=10, warmup=2, decay=0),
    ],
)
def test_what_is_no_schedule_is_refused(make):
    with pytest.raises(ConfigError) as caught:
        make()
    first, *_, last = str(caught.value).splitlines()
    assert len(first) <= 120
    assert last.startswith("Give")
