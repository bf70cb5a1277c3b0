"""MixedPrecision: autocast around two actions and a loss scale, as a loop by hand has them.

float16 on a CPU is refused; the tests of the loss scale switch that check off.
"""

import copy

import keras
import numpy as np
import pytest
import torch
from torch import nn

from fitkit import (
    Backward,
    Callback,
    ConfigError,
    FitLoop,
    Forward,
    MixedPrecision,
    TorchLoss,
    TorchStep,
    Turn,
    ZeroGrad,
    supervised,
)
from fitkit.record import recording
from fitkit.record.passes import writes
from fitkit.tune import mixed_precision, undo
from tests.unit.record.loops import compare
from tests.unit.tune import windows as w

SMALL = w.batches(64, 8)
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@pytest.fixture
def fp16_on_cpu(monkeypatch):
    monkeypatch.setattr(mixed_precision, "check_device", lambda dtype, device: None)


def overflowing(given, *at):
    """Batches some of which give infinite gradients."""
    changed = [(x.clone(), y) for x, y in given]
    for index in at:
        changed[index][0][0, 0] = 1e5  # infinite in float16
    return changed


def by_hand(model, apply, loader, *, epochs, dtype, scale=None, growth=2000):
    """Return the last scale and the number of skipped updates."""
    loss_fn, num_good, num_skipped = nn.CrossEntropyLoss(), 0, 0
    for x, y in [batch for _ in range(epochs) for batch in loader]:
        for parameter in model.parameters():
            parameter.grad = None
        with torch.autocast("cpu", DTYPES[dtype]):
            loss = loss_fn(model(x), y)
        if scale is None:
            loss.backward()
            apply()
            continue
        (loss * scale).backward()
        gradients = [p.grad for p in model.parameters()]
        if all(bool(g.isfinite().all()) for g in gradients):
            for gradient in gradients:
                gradient *= 1 / scale
            apply()
            num_good += 1
            if num_good == growth:
                scale, num_good = scale * 2, 0
        else:
            scale, num_good, num_skipped = scale / 2, 0, num_skipped + 1
    return scale, num_skipped


def keras_apply(model, optimizer):
    variables = [keras.Variable(p) for p in model.parameters()]

    def apply():
        with torch.no_grad():
            optimizer.apply([v.value.grad for v in variables], variables)

    return apply


def adam(model):
    return torch.optim.Adam(model.parameters(), lr=0.05)


OPTIMIZERS = {
    "SGD": w.sgd,
    "Adam": adam,
    "fused Adam": w.fused_adam,
    "Keras Adam": w.keras_adam,
    "Keras SGD": lambda model: keras.optimizers.SGD(0.5, momentum=0.9),
}


def step_of(model, optimizer):
    is_torch = isinstance(optimizer, torch.optim.Optimizer)
    return optimizer.step if is_torch else keras_apply(model, optimizer)


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_bf16_by_hand(make):
    model, ours = w.torch_mlp(), w.torch_mlp()
    by_hand(model, step_of(model, make(model)), SMALL, epochs=2, dtype="bf16")
    w.loop_of(ours, SMALL, MixedPrecision(), optimizer=make(ours)).fit(epochs=2)
    assert w.equal(w.weights(ours), w.weights(model))
    plain = w.torch_mlp()
    w.loop_of(plain, SMALL, optimizer=make(plain)).fit(epochs=2)
    assert w.distance(w.weights(ours), w.weights(plain)) > 1e-4


@pytest.mark.usefixtures("fp16_on_cpu")
@pytest.mark.parametrize("at", [(), (3,), (0, 1, 5)], ids=["finite", "one", "the first two"])
@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_fp16_by_hand(make, at):
    loader, options = overflowing(SMALL, *at), {"scale": 2.0**10, "growth": 3}
    model, ours = w.torch_mlp(), w.torch_mlp()
    apply = step_of(model, make(model))
    scale, num_skipped = by_hand(model, apply, loader, epochs=2, dtype="fp16", **options)
    precision = MixedPrecision("fp16", initial_scale=2.0**10, growth_every=3)
    optimizer = make(ours)
    history = w.loop_of(ours, loader, precision, optimizer=optimizer).fit(epochs=2)
    assert w.equal(w.weights(ours), w.weights(model))
    assert num_skipped == precision.num_skipped == 2 * len(at)
    assert history["skipped_updates"] == [len(at), len(at)]
    assert float(precision.state_dict()["scale"]) == scale != 2.0**10


@pytest.mark.usefixtures("fp16_on_cpu")
@pytest.mark.parametrize("initial", [2.0**4, 2.0**24], ids=["small", "too large at first"])
def test_fp16_as_the_scaler_of_torch(initial):
    loader = overflowing(SMALL, 3)
    model, ours = w.torch_mlp(), w.torch_mlp()
    optimizer, loss_fn = w.sgd(model), nn.CrossEntropyLoss()
    scaler = torch.amp.GradScaler("cpu", init_scale=initial, growth_interval=3)
    for x, y in loader * 2:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16):
            loss = loss_fn(model(x), y)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    precision = MixedPrecision("fp16", initial_scale=initial, growth_every=3)
    w.loop_of(ours, loader, precision).fit(epochs=2)
    assert w.equal(w.weights(ours), w.weights(model))
    assert float(precision.state_dict()["scale"]) == scaler.get_scale()


@pytest.mark.usefixtures("fp16_on_cpu")
def test_an_update_that_is_not_taken_back_ruins_the_weights(monkeypatch):
    """The negative control."""
    monkeypatch.setattr(undo, "take_back", lambda now, before, keep: None)
    model = w.torch_mlp()
    w.loop_of(model, overflowing(SMALL, 3), MixedPrecision("fp16")).fit(epochs=1)
    assert any(bool(t.isnan().any()) for t in w.weights(model))


@pytest.mark.usefixtures("fp16_on_cpu")
def test_the_scale_never_becomes_infinite():
    model = w.torch_mlp()
    zeros = [(torch.zeros_like(x), y) for x, y in SMALL]
    precision = MixedPrecision("fp16", initial_scale=2.0**120, growth_every=1)
    freeze = nn.CrossEntropyLoss()
    w.loop_of(model, zeros, precision, loss=lambda_loss(freeze)).fit(epochs=4)
    assert float(precision.state_dict()["scale"]) <= 2.0**127


def lambda_loss(loss):
    return TorchLoss(lambda outputs, targets: loss(outputs, targets) * 0.0)


class Watch(Callback):
    """Where autocast is on."""

    def __init__(self):
        self.on = {}

    def _look(self, name, phase):
        self.on.setdefault((phase.value, name), set()).add(torch.is_autocast_enabled("cpu"))

    def on_batch_begin(self, state):
        self._look("BATCH_BEGIN", state.phase)

    def on_loss_ready(self, state):
        self._look("LOSS_READY", state.phase)

    def on_grads_ready(self, state):
        self._look("GRADS_READY", state.phase)

    def on_update_metrics(self, state):
        self._look("UPDATE_METRICS", state.phase)

    def on_batch_end(self, state):
        self._look("BATCH_END", state.phase)


class Told(nn.Linear):
    """Says in which mode it computes, forward and backward."""

    def forward(self, x):
        forward, backward = self.seen
        forward.add(torch.is_autocast_enabled("cpu"))
        y = super().forward(x)
        if y.requires_grad:
            y.register_hook(lambda g: backward.add(torch.is_autocast_enabled("cpu")))
        return y


def test_autocast_is_on_in_forward_and_loss_alone():
    model = nn.Sequential(Told(6, 8), nn.Linear(8, 4))
    model[0].seen = (set(), set())
    losses, watch = set(), Watch()

    def loss(outputs, targets):
        losses.add(torch.is_autocast_enabled("cpu"))
        return nn.functional.cross_entropy(outputs, targets)

    loop = w.loop_of(model, SMALL, MixedPrecision(), watch, loss=TorchLoss(loss), val=SMALL[:2])
    loop.fit(epochs=1)
    loop.predict(SMALL[:2])
    assert model[0].seen == ({True}, {False})
    assert losses == {True}
    assert len(watch.on) == 5 + 4 + 2  # train, val, predict
    assert set().union(*watch.on.values()) == {False}


@pytest.mark.parametrize("where", ["forward", "loss"])
def test_nothing_leaks_when_an_action_raises(where):
    def fail(*_):
        raise KeyboardInterrupt

    model = w.torch_mlp()
    loss = TorchLoss(fail) if where == "loss" else None
    if where == "forward":
        model[1].forward = fail
    with pytest.raises(KeyboardInterrupt):
        w.loop_of(model, SMALL, MixedPrecision(), loss=loss).fit(epochs=1)
    assert not torch.is_autocast_enabled("cpu")


def test_validation_and_predictions_are_in_the_same_precision():
    model = w.torch_mlp()
    loop = w.loop_of(model, SMALL, MixedPrecision(), val=SMALL[:2])
    loop.fit(epochs=1)
    x, y = (torch.cat(part) for part in zip(*SMALL[:2], strict=True))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        outputs = model(x)
        loss = nn.functional.cross_entropy(outputs, y)
    assert np.array_equal(loop.predict(SMALL[:2]), outputs.float().numpy())
    assert loop.history["val_loss"][0] == pytest.approx(float(loss), rel=1e-6)


def test_the_loss_and_metrics_of_keras_take_what_a_torch_module_gives():
    model, accuracy = w.torch_mlp(), keras.metrics.SparseCategoricalAccuracy(name="accuracy")
    options = {"loss": w.keras_crossentropy(), "metrics": [accuracy]}
    loop = w.loop_of(model, SMALL, MixedPrecision(), val=SMALL[:2], **options)
    loop.fit(epochs=1)
    x, y = (torch.cat(part) for part in zip(*SMALL[:2], strict=True))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        outputs = model(x).float()
    by_hand = float(nn.functional.cross_entropy(outputs, y))
    assert loop.history["val_loss"][0] == pytest.approx(by_hand, rel=1e-5)
    assert loop.history["val_accuracy"][0] == float((outputs.argmax(1) == y).float().mean())


# -- Keras -----------------------------------------------------------------------------------------


def keras_half(policy):
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Dense(size, dtype=policy) for size in (8, 4)]
    return keras.Sequential([keras.Input((6,)), *layers])


def keras_loop(model, loader, *callbacks, optimizer):
    return w.loop_of(model, loader, *callbacks, optimizer=optimizer, loss=w.keras_crossentropy())


def test_a_keras_model_computes_by_its_policy_and_is_not_cast_again():
    ends = []
    for callbacks in ([], [MixedPrecision()]):
        model = keras_half("mixed_bfloat16")
        keras_loop(model, SMALL, *callbacks, optimizer=w.keras_adam()).fit(epochs=2)
        ends.append(w.weights(model))
    assert w.equal(*ends)


@pytest.mark.usefixtures("fp16_on_cpu")
@pytest.mark.parametrize("at", [(), (0, 3)], ids=["finite", "overflows"])
def test_the_loss_scale_of_a_keras_model_is_that_of_keras(at):
    loader = overflowing(SMALL, *at)
    theirs, ours = keras_half("mixed_float16"), keras_half("mixed_float16")
    options = {"initial_scale": 2.0**10, "dynamic_growth_steps": 3}
    scaled = keras.optimizers.LossScaleOptimizer(w.keras_adam(), **options)
    keras_loop(theirs, loader, optimizer=scaled).fit(epochs=2)
    precision = MixedPrecision("fp16", initial_scale=2.0**10, growth_every=3)
    optimizer = w.keras_adam()
    keras_loop(ours, loader, precision, optimizer=optimizer).fit(epochs=2)
    assert w.distance(w.weights(ours), w.weights(theirs)) < 1e-6
    assert float(precision.state_dict()["scale"]) == float(scaled.dynamic_scale)
    assert int(optimizer.iterations) == int(scaled.iterations) == 16 - 2 * len(at)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_a_keras_model_of_another_policy(policy):
    model = keras_half(policy)
    loop = keras_loop(model, SMALL, MixedPrecision(), optimizer=w.keras_adam())
    advice = 'keras.config.set_dtype_policy("mixed_bfloat16")'
    w.refused(loop, ConfigError, 'MixedPrecision("bf16")', policy, advice)


def test_a_torch_module_that_holds_keras_layers():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(6, 8), keras.layers.Dense(4)
            self.second.build((None, 8))

        def forward(self, x):
            return self.second(self.first(x))

    loop = w.loop_of(Both(), SMALL, MixedPrecision())
    w.refused(loop, ConfigError, "Both holds Keras layers", "autocast")


@pytest.mark.usefixtures("fp16_on_cpu")
@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.optimizers.LossScaleOptimizer(w.keras_adam()),
        lambda: w.keras_adam(loss_scale_factor=128.0),
    ],
    ids=["LossScaleOptimizer", "loss_scale_factor"],
)
def test_a_keras_optimizer_that_scales_the_loss(make):
    optimizer = make()
    loop = w.loop_of(w.torch_mlp(), SMALL, MixedPrecision("fp16"), optimizer=optimizer)
    kind = type(optimizer).__name__
    w.refused(loop, ConfigError, 'MixedPrecision("fp16")', kind, "both scale the loss")


# -- other refusals --------------------------------------------------------------------------------


def test_float16_on_a_cpu():
    loop = w.loop_of(w.torch_mlp(), SMALL, MixedPrecision("fp16"))
    w.refused(loop, ConfigError, 'MixedPrecision("fp16") on the device cpu', '"bf16"')


def test_bfloat16_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.amp, "is_autocast_available", lambda kind: False)
    loop = w.loop_of(w.torch_mlp(), SMALL, MixedPrecision("bf16"))
    w.refused(loop, ConfigError, 'MixedPrecision("bf16") on the device cpu', "not support it")


@pytest.mark.usefixtures("fp16_on_cpu")
def test_weights_in_float16():
    loop = w.loop_of(w.torch_mlp(torch.float16), SMALL, MixedPrecision("fp16"))
    w.refused(loop, ConfigError, "weights in float16", "model.half()")


@pytest.mark.parametrize("dtype", ["float16", "16", 16, None, torch.bfloat16])
def test_no_precision(dtype):
    with pytest.raises(ConfigError, match="expected 'bf16' or 'fp16'"):
        MixedPrecision(dtype)


@pytest.mark.parametrize("options", [{"initial_scale": 0}, {"growth_every": 0.5}])
def test_numbers_out_of_range(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        MixedPrecision("fp16", **options)


class OwnApply(Callback):
    """An update whose slots nobody sees."""

    def on_apply(self, state):
        for parameter in state.model.parameters():
            parameter -= parameter.grad


@pytest.mark.usefixtures("fp16_on_cpu")
def test_an_update_that_could_not_be_taken_back():
    loss = TorchLoss(nn.CrossEntropyLoss())
    actions = [ZeroGrad(), Forward(), loss, Backward(), OwnApply(), MixedPrecision("fp16")]
    loop = FitLoop(w.torch_mlp(), SMALL, callbacks=actions)
    w.refused(loop, ConfigError, "OwnApply", "slots are unknown", "OwnApply.optimizer")
    bf16 = [*actions[:-1], MixedPrecision("bf16")]
    FitLoop(w.torch_mlp(), SMALL, callbacks=bf16).fit(epochs=1)


@pytest.mark.usefixtures("fp16_on_cpu")
@pytest.mark.parametrize("other", ["bf16", "fp16"])
def test_two_in_one_step(other):
    loop = w.loop_of(w.torch_mlp(), SMALL, MixedPrecision("fp16"), MixedPrecision(other))
    w.refused(loop, ConfigError, 'MixedPrecision("fp16")', f'MixedPrecision("{other}")', "Keep one")


def turn_loop(precision_inside, precision_beside, loader=SMALL):
    model = w.torch_mlp()
    turns = []
    for name, part in [("first", model[0]), ("second", model[2])]:
        step = TorchStep(torch.optim.SGD(part.parameters(), lr=0.5, momentum=0.9))
        actions = [ZeroGrad(), Forward(), TorchLoss(nn.CrossEntropyLoss()), Backward(part), step]
        turns.append(Turn(name, [*actions, *precision_inside()]))
    return FitLoop(model, loader, callbacks=[*turns, *precision_beside()])


@pytest.mark.usefixtures("fp16_on_cpu")
def test_one_scale_for_two_turns_is_refused_and_one_for_each_is_right():
    beside = turn_loop(list, lambda: [MixedPrecision("fp16")])
    w.refused(beside, ConfigError, "beside the turns first, second", "Put one into each turn")
    inside = turn_loop(lambda: [MixedPrecision("fp16")], list, overflowing(SMALL, 0, 3))
    inside.fit(epochs=1)
    assert inside.history["first_skipped_updates"] == [2]
    assert inside.history["second_skipped_updates"] == [0]  # the tanh between them is finite
    assert inside.history["first_loss_scale"] == [2.0**14]
    assert inside.history["second_loss_scale"] == [2.0**16]
    assert all(bool(t.isfinite().all()) for t in w.weights(inside.model))


# -- resumed and recorded --------------------------------------------------------------------------


@pytest.mark.usefixtures("fp16_on_cpu")
def test_resumed_it_is_the_same_bit_by_bit():
    loader = overflowing(SMALL, 3)

    def loop_from(model, precision):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        return w.loop_of(model, loader, precision, optimizer=optimizer)

    def precision():
        return MixedPrecision("fp16", initial_scale=2.0**10, growth_every=5)

    whole, whole_precision = w.torch_mlp(), precision()
    loop_from(whole, whole_precision).fit(epochs=3)
    first, first_precision = w.torch_mlp(), precision()
    loop_from(first, first_precision).fit(epochs=1)
    saved = copy.deepcopy(first_precision.state_dict())
    second, second_precision = copy.deepcopy(first), precision()
    second_precision.load_state_dict(saved)
    assert second_precision.state_dict() == saved
    loop_from(second, second_precision).fit(epochs=2)
    assert w.equal(w.weights(second), w.weights(whole))
    assert second_precision.state_dict() == whole_precision.state_dict()
    assert second_precision.num_skipped == 3


def with_schedule(model):
    """A rate that the host evaluates for a recorded step, by the updates that really happened."""
    schedule = keras.optimizers.schedules.CosineDecay(0.01, 8, warmup_target=0.1, warmup_steps=4)
    return keras.optimizers.Adam(schedule)


slow = pytest.mark.slow
RECORDED = [
    pytest.param("bf16", w.fused_adam, (), id="bf16, fused Adam", marks=slow),
    pytest.param("bf16", w.keras_adam, (), id="bf16, Keras Adam", marks=slow),
    pytest.param("fp16", w.sgd, (), id="fp16, SGD", marks=slow),
    pytest.param("fp16", w.fused_adam, (0, 3), id="fp16, fused Adam, overflows"),
    pytest.param("fp16", with_schedule, (1, 3), id="fp16, Keras Adam with a schedule, overflows"),
]


@pytest.mark.usefixtures("fp16_on_cpu")
@pytest.mark.parametrize(("dtype", "make", "at"), RECORDED)
def test_recorded_it_is_the_same_bit_by_bit(dtype, make, at):
    loader, held = overflowing(SMALL, *at), []

    def made():
        model, precision = w.torch_mlp(), MixedPrecision(dtype, initial_scale=2.0**10)
        held.append(precision)
        return w.loop_of(model, loader, precision, optimizer=make(model), val=SMALL[:2])

    recorded = compare(made, epochs=3)
    assert recorded.refusals == []
    assert held[0].state_dict() == held[1].state_dict()
    assert held[1].num_skipped == 3 * len(at)


@pytest.mark.usefixtures("fp16_on_cpu")
def test_a_schedule_that_counts_skipped_updates_would_be_another_one(monkeypatch):
    """The negative control: the host counts every replay that writes the count."""
    monkeypatch.setattr(recording, "written_once", writes.written_state)
    loader = overflowing(SMALL, 1, 3)

    def made():
        model = w.torch_mlp()
        optimizer = with_schedule(model)
        return w.loop_of(model, loader, MixedPrecision("fp16"), optimizer=optimizer)

    with pytest.raises(AssertionError):
        compare(made, epochs=3)


def test_supervised_is_what_it_is_attached_to():
    model = w.torch_mlp()
    loop = FitLoop(model, SMALL, callbacks=supervised(loss=w.crossentropy(), optimizer="adam"))
    loop.attach(MixedPrecision("bf16")).fit(epochs=1)
    assert "loss_scale" not in loop.history
