"""EMA: the average that a loop by hand keeps; the weights are back after every pass."""

import copy

import keras
import pytest
import torch
from torch import nn

from fitkit import EMA, Accumulate, Callback, ConfigError, Event, Freeze
from tests.unit.record.loops import compare
from tests.unit.tune import windows as w

SMALL = w.batches(64, 8)


def averages_of(ema):
    return list(ema.state_dict()["averages"].values())


def decays(decay, warmup, num):
    return [min(decay, (1 + n) / (10 + n)) if warmup else decay for n in range(1, num + 1)]


@pytest.mark.parametrize("warmup", [True, False])
def test_by_hand(warmup):
    model = w.torch_mlp()
    optimizer, loss = w.sgd(model), nn.CrossEntropyLoss()
    averages = [p.detach().clone() for p in model.parameters()]
    in_double = [a.double() for a in averages]
    for (x, y), decay in zip(SMALL * 2, decays(0.9, warmup, 16), strict=True):
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()
        for average, double, parameter in zip(averages, in_double, model.parameters(), strict=True):
            average.lerp_(parameter.detach(), 1 - decay)
            double.copy_(decay * double + (1 - decay) * parameter.detach().double())
    ema = EMA(0.9, warmup=warmup)
    ours = w.torch_mlp()
    w.loop_of(ours, SMALL, ema).fit(epochs=2)
    assert w.equal(averages_of(ema), averages)
    assert w.distance(averages_of(ema), in_double) < 1e-6
    assert w.equal(w.weights(ours), w.weights(model))
    assert ema.num_updates == 16


def test_a_keras_model_as_keras_averages():
    """Keras begins with the weights after the first update; from there on both do the same."""
    theirs = w.keras_mlp()
    optimizer = w.keras_adam(use_ema=True, ema_momentum=0.9)
    w.loop_of(theirs, SMALL, optimizer=optimizer, loss=w.keras_crossentropy()).fit(max_steps=6)

    class FromFirstUpdate(Callback):
        def on_batch_end(self, state):
            if state.num_batches == 1:
                ema.load_state_dict({"num_updates": 0, "averages": {}})
                ema.on_pass_begin(state)

    ema = EMA(0.9, warmup=False)
    ours, loss = w.keras_mlp(), w.keras_crossentropy()
    w.loop_of(ours, SMALL, ema, FromFirstUpdate(), optimizer=w.keras_adam(), loss=loss).fit(
        max_steps=6
    )
    averages = [v.value for v in optimizer._model_variables_moving_average]
    assert w.distance(averages_of(ema), averages) < 1e-6


def test_only_updates_count_and_the_last_window_is_one():
    ema = EMA(0.9)
    loader = w.WithoutLength(w.batches(61, 8))
    model = w.torch_mlp()
    loop = w.loop_of(model, loader, Accumulate(3), ema)
    seen = []
    loop.on(Event.BATCH_END)(lambda state: seen.append(ema.num_updates))
    loop.fit(epochs=1)
    assert seen == [0, 0, 1, 1, 1, 2, 2, 2]
    assert ema.num_updates == loop.state.num_updates == 3


class SeenWeights(Callback):
    """The weights that each pass that does not train begins and ends with."""

    def __init__(self):
        self.begin, self.end = [], []

    def on_batch_begin(self, state):
        if state.phase != "train" and state.batch_index == 0:
            self.begin.append(w.weights(state.model))

    def on_pass_end(self, state):
        if state.phase != "train":
            self.end.append(w.weights(state.model))


@pytest.mark.parametrize("make", [w.torch_mlp, w.keras_mlp], ids=["torch", "Keras"])
def test_validation_and_predictions_see_the_averages(make):
    model, ema, seen = make(), EMA(0.9), SeenWeights()
    loop = w.loop_of(model, SMALL, ema, seen, val=SMALL[:2])
    loop.fit(epochs=2)
    after = w.weights(model)
    assert w.equal(seen.begin[-1], averages_of(ema))
    assert w.equal(seen.end[-1], averages_of(ema))
    evaluated, predicted = loop.evaluate(), loop.predict(SMALL[:2])
    assert w.equal(w.weights(model), after)
    assert not w.equal(after, averages_of(ema))
    with ema.averaged():
        assert w.equal(w.weights(model), averages_of(ema))
        expected = model(torch.cat([x for x, _ in SMALL[:2]])).detach()
    assert torch.equal(torch.as_tensor(predicted), expected)
    assert evaluated["loss"] == pytest.approx(loop.history["val_loss"][-1])
    targets = torch.cat([y for _, y in SMALL[:2]])
    assert evaluated["loss"] == pytest.approx(float(nn.functional.cross_entropy(expected, targets)))


def test_a_validation_within_an_epoch_does_not_disturb_the_training():
    def trained(validate):
        model, ema = w.torch_mlp(), EMA(0.9)
        loop = w.loop_of(model, SMALL, ema, val=SMALL[:2])
        if validate:
            loop.on(Event.BATCH_END)(lambda state: state.request(Event.VALIDATE))
        loop.fit(epochs=2)
        return [*w.weights(model), *averages_of(ema)]

    assert w.equal(trained(False), trained(True))


class FailInValidation(Callback):
    def on_batch_begin(self, state):
        if state.phase != "train" and state.batch_index == 1:
            raise KeyboardInterrupt


def test_the_weights_are_back_after_an_error():
    model, ema = w.torch_mlp(), EMA(0.9)
    loop = w.loop_of(model, SMALL, ema, FailInValidation(), val=SMALL[:2])
    with pytest.raises(KeyboardInterrupt):
        loop.fit(epochs=1)
    expected = w.torch_mlp()
    w.loop_of(expected, SMALL).fit(epochs=1)
    assert w.equal(w.weights(model), w.weights(expected))
    assert not w.equal(w.weights(model), averages_of(ema))
    with pytest.raises(ValueError, match="body"), ema.averaged():
        raise ValueError("body")
    assert w.equal(w.weights(model), w.weights(expected))


def test_an_evaluation_within_a_validation_sees_the_averages_too():
    model, ema, seen = w.torch_mlp(), EMA(0.9), SeenWeights()
    loop = w.loop_of(model, SMALL, ema, seen, val=SMALL[:2])

    class EvaluateInside(Callback):
        def on_pass_begin(self, state):
            if state.phase == "val" and state.prefix == "val_":
                loop.evaluate(SMALL[:1])

    loop.attach(EvaluateInside()).fit(epochs=1)
    assert len(seen.end) == 2
    assert all(w.equal(each, averages_of(ema)) for each in [*seen.begin, *seen.end])
    assert not w.equal(w.weights(model), averages_of(ema))


@pytest.mark.parametrize("make", [w.torch_mlp, w.keras_mlp], ids=["torch", "Keras"])
def test_resumed_it_is_the_same_bit_by_bit(make):
    model, ema = make(), EMA(0.9)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    w.loop_of(model, SMALL, ema, optimizer=optimizer).fit(epochs=3)

    first, ema_1 = make(), EMA(0.9)
    optimizer = torch.optim.SGD(first.parameters(), lr=0.5)
    w.loop_of(first, SMALL, ema_1, optimizer=optimizer).fit(epochs=1)
    saved = copy.deepcopy(ema_1.state_dict())
    second, ema_2 = make(), EMA(0.9)
    with torch.no_grad():
        for parameter, value in zip(second.parameters(), first.parameters(), strict=True):
            parameter.copy_(value)
    ema_2.load_state_dict(saved)
    optimizer = torch.optim.SGD(second.parameters(), lr=0.5)
    w.loop_of(second, SMALL, ema_2, optimizer=optimizer).fit(epochs=2)
    assert w.equal(averages_of(ema_2), averages_of(ema))
    assert ema_2.state_dict()["num_updates"] == 24


def test_averages_of_another_model_are_refused():
    ema = EMA(0.9)
    ema.load_state_dict({"num_updates": 1, "averages": {"0": torch.zeros(3, 3)}})
    w.refused(w.loop_of(w.torch_mlp(), SMALL, ema), ConfigError, "EMA: the average 0", "(3, 3)")


def test_half_precision_weights_are_averaged_in_float32():
    model = w.torch_mlp(torch.bfloat16)
    small = w.batches(64, 8, dtype=torch.bfloat16)
    ema = EMA(0.999, warmup=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    w.loop_of(model, small, ema, optimizer=optimizer).fit(epochs=2)
    assert {t.dtype for t in averages_of(ema)} == {torch.float32}
    assert w.distance(averages_of(ema), w.weights(w.torch_mlp(torch.bfloat16))) > 0
    with ema.averaged():
        assert {t.dtype for t in w.weights(model)} == {torch.bfloat16}


def test_a_weight_that_is_unfrozen_later_joins():
    model, ema = w.torch_mlp(), EMA(0.9, warmup=False)
    model[0].requires_grad_(False)
    loop = w.loop_of(model, SMALL, ema)
    loop.fit(epochs=1)
    assert len(averages_of(ema)) == 2
    model[0].requires_grad_(True)
    loop.fit(epochs=1)
    assert len(averages_of(ema)) == 4


@pytest.mark.parametrize("order", [[0, 1], [1, 0]], ids=["Freeze first", "EMA first"])
def test_what_is_unfrozen_in_mid_epoch_joins_at_once(order):
    """From its weights before its first update, wherever it is listed."""
    model, ema = w.torch_mlp(), EMA(0.9, warmup=False)
    both = [Freeze("0", until=3), ema]
    loop = w.loop_of(model, SMALL, *[both[place] for place in order])
    loop.attach(after := WeightsAfter())
    loop.fit(epochs=1)
    expected = w.weights(w.torch_mlp())
    for weights in after.seen:
        expected = [0.9 * a + 0.1 * b for a, b in zip(expected, weights, strict=True)]
    with ema.averaged():
        assert w.distance(w.weights(model), expected) < 1e-6


class WeightsAfter(Callback):
    """Keep the weights after each update."""

    def __init__(self):
        self.seen = []

    def on_batch_end(self, state):
        self.seen.append(w.weights(state.model))


def test_a_keras_optimizer_that_averages():
    optimizer = w.keras_adam(use_ema=True)
    loop = w.loop_of(w.torch_mlp(), SMALL, EMA(0.9), optimizer=optimizer)
    w.refused(loop, ConfigError, "EMA", "Adam(use_ema=True)", "both average the weights")


@pytest.mark.parametrize("decay", [1.0, -0.1, float("nan"), True, "0.9", 2])
def test_a_decay_out_of_range(decay):
    with pytest.raises(ConfigError, match="EMA.decay=.*expected a number in"):
        EMA(decay)


def test_two_of_them():
    with pytest.raises(ConfigError, match="both EMA"):
        w.loop_of(w.torch_mlp(), SMALL, EMA(0.9)).attach(EMA(0.99))


@pytest.mark.parametrize(
    "make",
    [
        lambda: w.loop_of(w.torch_mlp(), SMALL, EMA(0.9), val=SMALL[:2]),
        pytest.param(
            lambda: w.loop_of(
                w.keras_mlp(),
                SMALL,
                EMA(0.9),
                optimizer=keras.optimizers.Adam(0.05),
                loss=w.keras_crossentropy(),
                val=SMALL[:2],
            ),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["torch", "Keras"],
)
def test_recorded_it_is_the_same_bit_by_bit(make):
    held = []

    def made():
        loop = make()
        held.append(next(c for c in loop.callbacks if isinstance(c, EMA)))
        return loop

    recorded = compare(made, epochs=3)
    assert recorded.refusals == []
    assert w.equal(*map(averages_of, held))
