"""ClipGradNorm and ClipGradValue: what torch's own functions do, wherever gradients come from."""

import keras
import pytest
from torch import nn

from fitkit import (
    Accumulate,
    CallbackOrderError,
    ClipGradNorm,
    ClipGradValue,
    ConfigError,
    MixedPrecision,
    Turn,
)
from fitkit.tune import clipping
from tests.unit.record.loops import compare
from tests.unit.tune import windows as w

SMALL = w.batches(64, 8)


def norm_by_hand(limit, order=2.0):
    return lambda parameters: nn.utils.clip_grad_norm_(parameters, limit, order)


def value_by_hand(limit):
    return lambda parameters: nn.utils.clip_grad_value_(parameters, limit)


CLIPS = {
    "norm": (lambda: ClipGradNorm(0.3), norm_by_hand(0.3)),
    "norm, out of reach": (lambda: ClipGradNorm(100), norm_by_hand(100)),
    "norm, p=1": (lambda: ClipGradNorm(0.3, norm_type=1), norm_by_hand(0.3, 1.0)),
    "largest": (lambda: ClipGradNorm(0.1, norm_type=float("inf")), norm_by_hand(0.1, float("inf"))),
    "value": (lambda: ClipGradValue(0.05), value_by_hand(0.05)),
}


@pytest.mark.parametrize(("make", "clip"), CLIPS.values(), ids=CLIPS)
def test_torch_parts_by_hand(make, clip):
    model, norms = w.torch_mlp(), []
    optimizer, loss = w.sgd(model), nn.CrossEntropyLoss()
    for x, y in SMALL:
        optimizer.zero_grad()
        loss(model(x), y).backward()
        norms.append(clip(list(model.parameters())))
        optimizer.step()
    ours = w.torch_mlp()
    history = w.loop_of(ours, SMALL, make()).fit(epochs=1)
    assert w.equal(w.weights(ours), w.weights(model))
    if norms[0] is not None:
        assert history["grad_norm"] == [pytest.approx(float(sum(norms)) / len(norms), rel=1e-6)]


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (lambda: ClipGradNorm(0.3), {"global_clipnorm": 0.3}),
        (lambda: ClipGradValue(0.05), {"clipvalue": 0.05}),
    ],
    ids=["norm", "value"],
)
def test_keras_parts_as_keras_clips(make, options):
    def trained(optimizer, *callbacks):
        model = w.keras_mlp()
        loss = w.keras_crossentropy()
        w.loop_of(model, SMALL, *callbacks, optimizer=optimizer, loss=loss).fit(epochs=2)
        return w.weights(model)

    ours = trained(keras.optimizers.SGD(0.5), make())
    theirs = trained(keras.optimizers.SGD(0.5, **options))
    assert w.distance(ours, theirs) < 1e-6
    assert w.distance(ours, trained(keras.optimizers.SGD(0.5))) > 1e-3


SCALED = {
    "static": lambda inner: inner(loss_scale_factor=1024.0),
    "dynamic": lambda inner: keras.optimizers.LossScaleOptimizer(inner(), initial_scale=1024.0),
}


@pytest.mark.parametrize("scaled", SCALED.values(), ids=SCALED)
@pytest.mark.parametrize("make", [lambda: ClipGradNorm(0.3), lambda: ClipGradValue(0.05)])
def test_gradients_that_keras_will_unscale_are_clipped_as_if_unscaled(scaled, make):
    def trained(make_optimizer):
        model = w.keras_mlp()
        optimizer = make_optimizer(lambda **options: keras.optimizers.SGD(0.5, **options))
        options = {"optimizer": optimizer, "loss": w.keras_crossentropy()}
        history = w.loop_of(model, SMALL, make(), **options).fit(epochs=2)
        return w.weights(model), history.rows

    ours, rows = trained(scaled)
    plain, plain_rows = trained(lambda inner: inner())
    assert w.distance(ours, plain) < 1e-6
    for row, plain_row in zip(rows, plain_rows, strict=True):
        norms = [each.get("grad_norm", 0.0) for each in (row, plain_row)]
        assert norms[0] == pytest.approx(norms[1], rel=1e-5)


def test_without_the_scale_it_would_be_another_limit(monkeypatch):
    """The negative control."""
    monkeypatch.setattr(clipping, "grads_scaled_by", lambda optimizers: None)
    ends = []
    for options in ({}, {"loss_scale_factor": 1024.0}):
        model, optimizer = w.keras_mlp(), keras.optimizers.SGD(0.5, **options)
        loss = w.keras_crossentropy()
        w.loop_of(model, SMALL, ClipGradNorm(0.3), optimizer=optimizer, loss=loss).fit(epochs=1)
        ends.append(w.weights(model))
    assert w.distance(*ends) > 1e-2


def test_an_overflow_is_left_for_the_optimizer_to_see():
    """Clipped to the limit, an infinite gradient would look like any other."""
    model = w.keras_mlp()
    inner = keras.optimizers.SGD(0.5)
    optimizer = keras.optimizers.LossScaleOptimizer(inner, initial_scale=1024.0)
    bad = [(x.clone(), y) for x, y in SMALL]
    bad[3][0][0, 0] = float("inf")
    loss = w.keras_crossentropy()
    for clip in (ClipGradValue(0.05), ClipGradNorm(0.3)):
        loop = w.loop_of(model, bad, clip, optimizer=optimizer, loss=loss)
        loop.fit(epochs=1)
        norms = loop.history.rows[0].get("grad_norm", 1.0)
        assert 0 < norms < float("inf")  # of the updates that were made
    assert int(inner.iterations) == 2 * (len(bad) - 1)
    assert float(optimizer.dynamic_scale) == 1024.0 / 4


@pytest.mark.parametrize("make", [lambda: ClipGradNorm(0.3), lambda: ClipGradValue(0.05)])
def test_the_gradient_of_a_whole_window_is_clipped(make):
    def trained(loader, *callbacks):
        model = w.torch_mlp()
        w.loop_of(model, loader, *callbacks, make()).fit(epochs=2)
        return w.weights(model)

    small = w.batches(61, 8)
    ours = trained(w.WithoutLength(small), Accumulate(3))
    assert w.distance(ours, trained(w.joined(small, 3))) < 2e-6


@pytest.mark.parametrize("make", [lambda: ClipGradNorm(0.3), lambda: ClipGradValue(0.05)])
@pytest.mark.parametrize(
    "arguments", [{"clipnorm": 1.0}, {"clipvalue": 0.5}, {"global_clipnorm": 1.0}]
)
def test_a_keras_optimizer_that_clips(make, arguments):
    [(name, value)] = arguments.items()
    optimizer = keras.optimizers.LossScaleOptimizer(w.keras_adam(**arguments))
    loop = w.loop_of(w.torch_mlp(), SMALL, clip := make(), optimizer=optimizer)
    w.refused(loop, ConfigError, type(clip).__name__, f"Adam({name}={value})", "both clip")


def test_a_second_norm_is_refused_but_in_another_turn():
    first, second = ClipGradNorm(0.3), ClipGradNorm(0.1)
    loop = w.loop_of(w.torch_mlp(), SMALL)
    with pytest.raises(ConfigError, match="are both ClipGradNorm") as caught:
        loop.attach(first, second)
    assert "The smaller limit is enough" in str(caught.value)
    with pytest.raises(ConfigError, match="are both ClipGradNorm"):
        loop.attach(first, Turn("a", [second]))
    loop.attach(Turn("a", [first]), Turn("b", [second]))
    assert {"a_grad_norm", "b_grad_norm"} <= set(loop.fit(epochs=1).rows[0])


@pytest.mark.parametrize("limit", [0, -1.0, float("nan"), True, "1", None])
@pytest.mark.parametrize("kind", [ClipGradNorm, ClipGradValue])
def test_no_positive_limit(kind, limit):
    with pytest.raises(ConfigError, match="max_.*=.*expected a number above 0"):
        kind(limit)


@pytest.mark.parametrize("kind", [ClipGradNorm, ClipGradValue])
@pytest.mark.parametrize("earlier", [lambda: Accumulate(2), lambda: MixedPrecision("bf16")])
def test_what_makes_the_gradients_comes_first(kind, earlier):
    other = earlier()
    loop = w.loop_of(w.torch_mlp(), SMALL, kind(1.0), other)
    order = f"Right order: {type(other).__name__}, {kind.__name__}"
    w.refused(loop, CallbackOrderError, kind.__name__, "is listed before", "at GRADS_READY", order)


def loops():
    def torch_parts(clip):
        model = w.torch_mlp()
        return w.loop_of(model, SMALL, clip, optimizer=w.sgd(model))

    def keras_parts(clip):
        model = w.keras_mlp()
        optimizer = keras.optimizers.LossScaleOptimizer(w.keras_adam(), initial_scale=1024.0)
        return w.loop_of(model, SMALL, clip, optimizer=optimizer, loss=w.keras_crossentropy())

    yield pytest.param(torch_parts, lambda: ClipGradNorm(0.3), id="torch, norm")
    yield pytest.param(keras_parts, lambda: ClipGradValue(0.05), id="Keras, value")
    yield pytest.param(torch_parts, lambda: ClipGradValue(0.05), id="v", marks=pytest.mark.slow)
    yield pytest.param(keras_parts, lambda: ClipGradNorm(0.3), id="n", marks=pytest.mark.slow)


@pytest.mark.parametrize(("make_loop", "clip"), list(loops()))
def test_recorded_it_is_the_same_bit_by_bit(make_loop, clip):
    recorded = compare(lambda: make_loop(clip()), epochs=2)
    assert recorded.refusals == []
