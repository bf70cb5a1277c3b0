"""LRFinder finds what a search written by hand finds, and leaves no trace, bit by bit."""

import copy
import random

import keras
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from fitkit import (
    EMA,
    Accumulate,
    Callback,
    ClipGradNorm,
    ConfigError,
    Event,
    FitLoop,
    Freeze,
    LRFinder,
    MixedPrecision,
    Record,
    TensorLoader,
    Turn,
    supervised,
)
from tests.unit.tune.trainings import (
    KINDS,
    data,
    loop_of,
    loss_of,
    model_of,
    optimizer_of,
    weights_of,
)
from tests.unit.tune.trainings import apply as apply_update
from tests.unit.tune.trainings import batches as batches_of


def noisy_loop(kind, *callbacks):
    """Random numbers of every kind, running statistics, metrics, a shuffled loader."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(1)
    if kind == "torch":
        linear, norm = torch.nn.Linear, torch.nn.BatchNorm1d
        model = torch.nn.Sequential(linear(4, 8), norm(8), torch.nn.Dropout(0.3), linear(8, 1))
    else:
        layers = keras.layers
        middle = [layers.BatchNormalization(), layers.GaussianNoise(0.1, seed=2)]
        model = keras.Sequential(
            [keras.Input((4,)), layers.Dense(8), *middle, layers.Dropout(0.3), layers.Dense(1)]
        )
    optimizer = optimizer_of(kind, model)
    metric = keras.metrics.MeanAbsoluteError()
    if kind == "torch":
        loader = DataLoader(TensorDataset(*data()), 8, shuffle=True)
    else:
        loader = TensorLoader(*data(), batch_size=8, shuffle=True)
    loop = FitLoop(model, loader, batches_of(16))
    loss = torch.nn.MSELoss() if kind == "torch" else "mse"
    loop.attach(supervised(loss=loss, optimizer=optimizer, metrics=[metric]), *callbacks)
    return loop, metric, optimizer


def plain(structure):
    """The same with tensors as bytes, which can be compared."""
    if isinstance(structure, torch.Tensor):
        return structure.detach().numpy().tobytes()
    if isinstance(structure, dict):
        return {key: plain(value) for key, value in structure.items()}
    return [plain(each) for each in structure] if isinstance(structure, list | tuple) else structure


def everything(loop, metric, optimizer):
    """All that a training depends on, as bytes and numbers."""
    from keras.src.backend.common import global_state

    tensors = [*loop.model.parameters(), *loop.model.buffers()]
    tensors += [v.value for v in metric.variables]
    tensors += [torch.get_rng_state()]
    if (drawn := global_state.get_global_attribute("global_seed_generator")) is not None:
        tensors.append(drawn.state.value)
    if isinstance(optimizer, torch.optim.Optimizer):
        tensors += [v for slots in optimizer.state.values() for v in slots.values()]
        groups = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    else:
        tensors += [v.value for v in optimizer.variables]
        groups = [optimizer.weight_decay]
    gradients = [None if p.grad is None else p.grad.numpy().tobytes() for p in tensors]
    modes = [m.training for m in loop.model.modules()]
    fields = ("epoch", "num_epochs", "num_updates", "num_batches", "num_samples", "stop", "logs")
    loader = {k: v for k, v in vars(loop.train_loader).items() if isinstance(v, int | float)}
    return copy.deepcopy(
        [
            [t.detach().numpy().tobytes() for t in tensors],
            *(groups, gradients, modes, loader),
            [getattr(loop.state, name) for name in fields],
            loop.state.turn_updates,
            random.getstate(),
            np.random.get_state()[1].tobytes(),
            loop.history.rows,
            [plain(callback.state_dict()) for callback in loop.callbacks],
        ]
    )


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_touched(kind):
    loop, metric, optimizer = noisy_loop(kind)
    loop.fit(epochs=1)
    before = everything(loop, metric, optimizer)
    found = LRFinder(num_updates=12).find(loop)
    assert len(found.losses) == 12
    after = everything(loop, metric, optimizer)
    assert [a == b for a, b in zip(before, after, strict=True)] == [True] * len(before)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_trained_later_is_the_same(kind):
    searched, metric, optimizer = noisy_loop(kind)
    LRFinder(num_updates=7).find(searched)
    searched.fit(epochs=1)
    LRFinder(num_updates=7).find(searched)
    searched.fit(epochs=1)
    got = everything(searched, metric, optimizer)
    plain, metric, optimizer = noisy_loop(kind)
    plain.fit(epochs=1)
    plain.fit(epochs=1)
    expected = everything(plain, metric, optimizer)
    assert [a == b for a, b in zip(expected, got, strict=True)] == [True] * len(got)


@pytest.mark.parametrize("part", ["untouched", "untouched_model", "untouched_optimizers"])
def test_what_is_not_put_back_is_seen(part, monkeypatch):
    from contextlib import nullcontext

    from fitkit.tune import lr_finder

    monkeypatch.setattr(lr_finder, part, lambda *_: nullcontext())
    loop, metric, optimizer = noisy_loop("torch")
    loop.fit(epochs=1)
    before = everything(loop, metric, optimizer)
    LRFinder(num_updates=6).find(loop)
    assert before != everything(loop, metric, optimizer)


@pytest.mark.parametrize("kind", KINDS)
def test_the_losses_are_those_of_a_search_by_hand(kind):
    found = LRFinder(start=1e-3, end=0.1, num_updates=10).find(loop_of(kind))
    losses = []
    model = model_of(kind)
    optimizer, weights = optimizer_of(kind, model), weights_of(kind, model)
    for k in range(10):
        rate = 1e-3 * (0.1 / 1e-3) ** (k / 9)
        if kind == "torch":
            optimizer.param_groups[0]["lr"] = rate
        else:
            optimizer.learning_rate = rate
        x, y = list(batches_of())[k % 5]
        for weight in weights:
            weight.grad = None
        loss = loss_of(kind, model(x), y)
        loss.backward()
        apply_update(kind, optimizer, model)
        losses.append(loss.item())
        assert found.rates[k] == pytest.approx(rate)
    assert found.losses == losses
    mean = 0.0
    for k, loss in enumerate(losses):
        mean = 0.9 * mean + 0.1 * loss
        assert found.smoothed[k] == pytest.approx(mean / (1 - 0.9 ** (k + 1)))


def test_the_search_ends_where_the_loss_diverges():
    def make(model):
        return torch.optim.SGD(model.parameters(), lr=0.1)

    found = LRFinder(end=1e6, num_updates=60).find(loop_of("torch", optimizer=make))
    assert len(found.losses) < 60
    assert len(found.losses) == len(found.rates) == len(found.smoothed)
    assert np.isfinite(found.losses).all()


def test_the_suggestion_is_where_the_loss_falls_fastest():
    from fitkit import LRCurve

    rates = list(np.geomspace(1e-4, 1.0, 41))
    fall = 1 / (1 + np.exp(4 * (np.log(rates) - np.log(1e-2))))  # steepest at 1e-2
    curve = LRCurve(rates, list(fall), list(fall))
    assert curve.suggestion == pytest.approx(1e-2)
    assert LRCurve([0.1, 0.2], [1.0, 2.0], [1.0, 2.0]).suggestion is None
    axes = curve.plot()
    assert axes.get_xscale() == "log"
    assert list(axes.lines[1].get_xdata()) == rates
    LRCurve([], [], []).plot()
    assert repr(LRCurve([], [], [])) == "LRCurve(0 rates, suggestion=None)"


def test_the_explosion_at_the_end_does_not_flatten_the_chart():
    from fitkit import LRCurve

    losses = [2.0, 2.0, 1.5, 1.0, 3.0, 500.0]
    axes = LRCurve(list(np.geomspace(1e-4, 1.0, 6)), losses, losses).plot()
    assert axes.get_ylim() == pytest.approx((0.9, 2.5))


def test_a_loss_that_only_rises_is_drawn_whole():
    from fitkit import LRCurve

    losses = [1.0, 2.0, 4.0]
    low, high = LRCurve([0.1, 1.0, 10.0], losses, losses).plot().get_ylim()
    assert low < 1.0
    assert high > 4.0


def test_windows_of_accumulation_are_single_points():
    found = LRFinder(start=1e-3, end=0.1, num_updates=4).find(loop_of("torch", Accumulate(2)))
    assert len(found.losses) == 4
    assert found.rates == pytest.approx(list(np.geomspace(1e-3, 0.1, 4)))


class Ears(Callback):
    def __init__(self):
        self.heard = []

    def on_open(self, state):
        self.heard.append("open")

    def on_batch_end(self, state):
        self.heard.append("batch")

    def on_epoch_end(self, state):
        self.heard.append("epoch")


def test_nobody_else_hears_of_it_and_programs_stay():
    ears, record = Ears(), Record("interpret", strict=True)
    loop, *_ = noisy_loop("torch", ears, record)
    loop.fit(epochs=1)
    before, heard = dict(record.recordings), list(ears.heard)
    LRFinder(num_updates=5).find(loop)
    assert ears.heard == heard
    loop.fit(epochs=1)
    assert set(before) <= set(record.recordings)


def test_an_error_in_the_search_leaves_no_trace_either():
    class Failing(Callback):
        def on_loss_ready(self, state):
            if state.batch_index == 2:
                raise OSError("broken")

    loop, metric, optimizer = noisy_loop("keras")
    loop.fit(epochs=1)
    loop.attach(Failing())
    before = everything(loop, metric, optimizer)
    with pytest.raises(OSError, match="broken"):
        LRFinder(num_updates=5).find(loop)
    after = everything(loop, metric, optimizer)
    assert [a == b for a, b in zip(before, after, strict=True)] == [True] * len(before)
    assert loop.running is None


@pytest.mark.parametrize(
    "options",
    [
        {"start": 0.0},
        {"start": 1.0, "end": 0.1},
        {"num_updates": 0},
        {"num_updates": True},
        {"smoothing": 1.0},
        {"end": float("nan")},
    ],
)
def test_wrong_arguments_are_refused(options):
    with pytest.raises(ConfigError):
        LRFinder(**options)


def test_what_cannot_be_searched_is_refused():
    with pytest.raises(ConfigError, match="train_loader back"):
        LRFinder().find(loop_of("torch", train=(batch for batch in batches_of())))

    def scheduled(model):
        return keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.1, 10))

    with pytest.raises(ConfigError, match="CosineDecay does"):
        LRFinder().find(loop_of("keras", optimizer=scheduled))
    turns = loop_of("torch").attach(Turn("a", [Ears()]), Turn("b", [Ears()]))
    with pytest.raises(ConfigError, match="turns a, b"):
        LRFinder().find(turns)
    loop = loop_of("torch")
    loop.on(Event.BATCH_END)(lambda state: LRFinder().find(loop))
    with pytest.raises(ConfigError, match="running"):
        loop.fit(epochs=1)


class Draws(Callback):
    """Use Keras's global generator in every batch."""

    def on_batch_begin(self, state):
        state.extra.noise = keras.random.normal((1,))


@pytest.mark.parametrize("is_made", [True, False])
def test_the_global_generator_of_keras_goes_on_as_without_the_search(is_made):
    def later(search):
        loop, *_ = noisy_loop("torch", Draws())
        if is_made:
            keras.random.normal((1,))
        if search:
            LRFinder(num_updates=3).find(loop)
        return random.random(), keras.random.normal((3,)).tolist()

    assert later(search=True) == later(search=False)


@pytest.mark.parametrize("is_fresh", [True, False])
def test_what_changes_gradients_and_weights_is_put_back_too(is_fresh):
    def made():
        extra = [Accumulate(2), MixedPrecision("bf16"), ClipGradNorm(0.5), EMA(0.9)]
        return noisy_loop("torch", *extra, Freeze("0", until="2 epochs"))

    def later(search):
        loop, metric, optimizer = made()
        if not is_fresh:
            loop.fit(epochs=1)
        if search:
            LRFinder(num_updates=5).find(loop)
        loop.fit(epochs=2)
        return everything(loop, metric, optimizer)

    expected, got = later(search=False), later(search=True)
    assert [a == b for a, b in zip(expected, got, strict=True)] == [True] * len(got)
