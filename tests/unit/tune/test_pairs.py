"""Accumulate, ClipGradNorm, ClipGradValue, EMA and MixedPrecision together, as a loop by hand."""

from itertools import product

import keras
import pytest
import torch
from torch import nn

from fitkit import EMA, Accumulate, ClipGradNorm, ClipGradValue, MixedPrecision
from fitkit.tune import mixed_precision
from tests.unit.record.loops import compare
from tests.unit.tune import windows as w

SMALL = w.batches(64, 8)  # windows of 3, 3, 2
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
SCALE = 2.0**10
NAMES = ("accumulate", "norm", "value", "ema", "precision")
ALL = {"accumulate": 3, "norm": 0.3, "value": 0.05, "ema": 0.9, "precision": "fp16"}


def num_of(combination):
    """How many of the callbacks are in it."""
    return sum(v not in (None, 1) for v in combination.values())


COMBINATIONS = [
    dict(zip(NAMES, chosen, strict=True))
    for chosen in product((1, 3), (None, 0.3), (None, 0.05), (None, 0.9), (None, "bf16", "fp16"))
]


# Every pair runs always with Keras, too; the other combinations when they are asked for.
KERAS_COMBINATIONS = [
    pytest.param(each, marks=() if num_of(each) in (2, 5) else pytest.mark.slow)
    for each in COMBINATIONS
]


def titled(combination):
    return " ".join(f"{k}={v}" for k, v in combination.items() if v not in (None, 1)) or "none"


@pytest.fixture(autouse=True)
def fp16_on_cpu(monkeypatch):
    monkeypatch.setattr(mixed_precision, "check_device", lambda dtype, device: None)


@pytest.fixture
def small():
    """The third window, and with one batch per window the fourth, have infinite gradients."""
    changed = [(x.clone(), y) for x, y in SMALL]
    changed[6][0][0, 0] = 1e5
    return changed


def callbacks(accumulate, norm, value, ema, precision):
    made = []
    if accumulate > 1:
        made.append(Accumulate(accumulate))
    if precision:
        made.append(MixedPrecision(precision, initial_scale=SCALE, growth_every=3))
    if norm:
        made.append(ClipGradNorm(norm))
    if value:
        made.append(ClipGradValue(value))
    if ema:
        made.append(EMA(ema, warmup=False))
    return made


class Hand:
    """One step after the other, written out."""

    def __init__(self, model, apply, scale, *, norm, value, ema, **_):
        self.model, self.apply, self.scale, self.num_good = model, apply, scale, 0
        self.norm, self.value, self.decay = norm, value, ema
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.averages = [p.detach().clone() for p in self.parameters]

    def train(self, loader, loss_of, size):
        for begin in range(0, len(loader), size):
            window = loader[begin : begin + size]
            for parameter in self.parameters:
                parameter.grad = None
            for x, y in window:
                (loss_of(self.model, x, y) * self.scale).backward()
            for parameter in self.parameters:
                parameter.grad /= len(window)
            self.update()

    @torch.no_grad()
    def update(self):
        gradients = [p.grad for p in self.parameters]
        finite = all(bool(g.isfinite().all()) for g in gradients)
        for gradient in gradients:
            gradient *= 1 / self.scale
        if self.norm:
            nn.utils.clip_grad_norm_(self.parameters, self.norm)
        if self.value:
            nn.utils.clip_grad_value_(self.parameters, self.value)
        if self.scale == 1.0 or finite:
            self.apply()
        if self.scale != 1.0:
            self.num_good = self.num_good + 1 if finite else 0
            self.scale = self.scale if finite else self.scale / 2
            if self.num_good == 3:
                self.scale, self.num_good = self.scale * 2, 0
        for average, parameter in zip(self.averages, self.parameters, strict=True):
            if self.decay:
                average.lerp_(parameter, 1 - self.decay)


def torch_loss(precision):
    def loss_of(model, x, y):
        with torch.autocast("cpu", DTYPES.get(precision), enabled=precision is not None):
            return nn.functional.cross_entropy(model(x), y)

    return loss_of


@pytest.mark.parametrize("combination", COMBINATIONS, ids=titled)
def test_torch_parts(combination, small):
    precision = combination["precision"]
    loader = small if precision == "fp16" else SMALL
    model, ours = w.torch_mlp(), w.torch_mlp()
    optimizer = w.sgd(model)
    hand = Hand(model, optimizer.step, SCALE if precision == "fp16" else 1.0, **combination)
    made = callbacks(**combination)
    loop = w.loop_of(ours, loader, *made)
    for _ in range(2):
        hand.train(loader, torch_loss(precision), combination["accumulate"])
    loop.fit(epochs=2)
    assert w.equal(w.weights(ours), w.weights(model))
    for each in made:
        if isinstance(each, EMA):
            assert w.equal(list(each.state_dict()["averages"].values()), hand.averages)
        if precision == "fp16" and isinstance(each, MixedPrecision):
            assert float(each.state_dict()["scale"]) == hand.scale
            assert each.num_skipped == 2


def test_the_end_of_a_loader_without_length_closes_a_window_of_all(small):
    model, ours, made = w.torch_mlp(), w.torch_mlp(), callbacks(**ALL)
    hand = Hand(model, w.sgd(model).step, SCALE, **ALL)
    hand.train(small, torch_loss("fp16"), 3)
    w.loop_of(ours, w.WithoutLength(small), *made).fit(epochs=1)
    assert w.equal(w.weights(ours), w.weights(model))
    assert w.equal(list(made[-1].state_dict()["averages"].values()), hand.averages)
    assert float(made[1].state_dict()["scale"]) == hand.scale


def keras_model(precision):
    policy = {"bf16": "mixed_bfloat16", "fp16": "mixed_float16"}.get(precision, "float32")
    keras.utils.set_random_seed(1)
    hidden = keras.layers.Dense(8, activation="tanh", dtype=policy)
    return keras.Sequential([keras.Input((6,)), hidden, keras.layers.Dense(4, dtype=policy)])


def keras_loss(model, x, y):
    return w.keras_crossentropy()(y, model(x))


@pytest.mark.parametrize("combination", KERAS_COMBINATIONS, ids=titled)
def test_keras_parts(combination, small):
    precision = combination["precision"]
    loader = small if precision == "fp16" else SMALL
    keras.utils.clear_session()
    model = keras_model(precision)
    optimizer = w.keras_adam()
    apply = lambda: optimizer.apply(  # noqa: E731
        [v.value.grad for v in model.trainable_variables], model.trainable_variables
    )
    hand = Hand(model, apply, SCALE if precision == "fp16" else 1.0, **combination)
    for _ in range(2):
        hand.train(loader, keras_loss, combination["accumulate"])
    keras.utils.clear_session()
    ours, made = keras_model(precision), callbacks(**combination)
    options = {"optimizer": w.keras_adam(), "loss": w.keras_crossentropy()}
    w.loop_of(ours, loader, *made, **options).fit(epochs=2)
    assert w.equal(w.weights(ours), w.weights(model))
    for each in made:
        if precision == "fp16" and isinstance(each, MixedPrecision):
            assert float(each.state_dict()["scale"]) == hand.scale


RECORDED = [
    pytest.param("torch", {**ALL, "precision": "bf16"}, marks=pytest.mark.slow),
    pytest.param("torch", ALL),
    pytest.param("Keras", ALL, marks=pytest.mark.slow),
    *[
        pytest.param("torch", each, marks=pytest.mark.slow, id=titled(each))
        for each in COMBINATIONS
        if num_of(each) == 2
    ],
]


@pytest.mark.parametrize(("parts", "combination"), RECORDED)
def test_recorded_they_are_the_same_bit_by_bit(parts, combination, small):
    precision = combination["precision"]
    loader = small if precision == "fp16" else SMALL

    def make():
        made = callbacks(**combination)
        if parts == "torch":
            model = w.torch_mlp()
            return w.loop_of(model, loader, *made, optimizer=w.sgd(model), val=SMALL[:1])
        options = {"optimizer": w.keras_adam(), "loss": w.keras_crossentropy(), "val": SMALL[:1]}
        return w.loop_of(keras_model(precision), loader, *made, **options)

    recorded = compare(make, epochs=4)
    assert recorded.refusals == []
