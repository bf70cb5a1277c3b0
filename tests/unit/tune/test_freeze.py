"""Frozen weights stay as they are, bit by bit, and train from the planned update on."""

import keras
import pytest
import torch

from fitkit import Accumulate, ConfigError, Event, FitLoop, Freeze, Record, supervised
from tests.unit.tune.trainings import (
    KINDS,
    assert_equal,
    batches,
    by_hand,
    loop_of,
    optimizer_of,
    replays,
    weights_of,
)

FIRST = {"torch": "0", "keras": "first"}


PLANS = {
    "until an epoch": ({"until": "2 epochs"}, lambda k: k < 10),
    "until an update": ({"until": 7}, lambda k: k < 7),
    "from an epoch": ({"start": "1 epoch"}, lambda k: k >= 5),
    "between": ({"start": 3, "until": "2 epochs"}, lambda k: 3 <= k < 10),
}
# "between" freezes and thaws, at an update and at an epoch: recorded, the rest shows that again.
RECORDED = [
    pytest.param("torch", "recorded", plan, marks=() if plan == "between" else pytest.mark.slow)
    for plan in PLANS
]
RECORDED += [pytest.param("keras", "recorded", plan, marks=pytest.mark.slow) for plan in PLANS]


@pytest.mark.parametrize(
    ("kind", "mode", "plan"),
    [*((kind, "eager", plan) for kind in KINDS for plan in PLANS), *RECORDED],
)
def test_it_is_the_training_without_those_gradients(kind, mode, plan):
    options, is_frozen = PLANS[plan]
    loop = loop_of(kind, Freeze(FIRST[kind], **options), mode=mode)
    loop.fit(epochs=3)
    frozen = [0, 1]  # weight and bias of the first layer
    expected = by_hand(kind, lambda o, k: None, frozen=lambda k: frozen if is_frozen(k) else ())
    assert_equal(loop, kind, expected)
    assert all(weight.requires_grad for weight in weights_of(kind, loop.model))
    if mode == "recorded":
        assert replays(loop) >= 8


@pytest.mark.parametrize("kind", KINDS)
def test_without_it_the_weights_are_others(kind):
    loop = loop_of(kind)
    loop.fit(epochs=3)
    expected = by_hand(kind, lambda o, k: None, frozen=lambda k: (0, 1) if k < 10 else ())
    assert not torch.equal(weights_of(kind, loop.model)[0], expected[0])


def test_a_keras_optimizer_knows_the_frozen_weights_of_a_torch_module():
    def make(frozen):
        keras.utils.set_random_seed(1)
        model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
        loop = FitLoop(model, batches())
        adam = keras.optimizers.Adam(0.05)
        loop.attach(supervised(loss=torch.nn.MSELoss(), optimizer=adam))
        return loop.attach(Freeze("0", until="1 epoch")) if frozen else loop

    frozen, free = make(True), make(False)
    start = frozen.model[0].weight.detach().clone()
    frozen.fit(epochs=1)
    assert torch.equal(frozen.model[0].weight, start)
    frozen.fit(epochs=1)
    free.fit(epochs=1)
    assert not torch.equal(frozen.model[0].weight, start)
    assert not torch.equal(free.model[0].weight, start)


@pytest.mark.parametrize("kind", KINDS)
def test_frozen_normalization_keeps_its_statistics(kind):
    keras.utils.set_random_seed(1)
    if kind == "torch":
        model = torch.nn.Sequential(
            torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 1)
        )
        norm, what = model[1], ["1"]
        mean = lambda: norm.running_mean.clone()  # noqa: E731
    else:
        layers = [keras.layers.Dense(8), keras.layers.BatchNormalization(name="norm")]
        model = keras.Sequential([keras.Input((4,)), *layers, keras.layers.Dense(1)])
        norm, what = layers[1], ["norm"]
        mean = lambda: norm.moving_mean.value.clone()  # noqa: E731
    loop = FitLoop(model, batches())
    loss = torch.nn.MSELoss() if kind == "torch" else "mse"
    loop.attach(supervised(loss=loss, optimizer=optimizer_of(kind, model)))
    loop.attach(Freeze(what, until="1 epoch"))
    means = [mean()]
    loop.on(Event.EPOCH_END)(lambda state: means.append(mean()))
    loop.fit(epochs=2)
    assert torch.equal(means[0], means[1])
    assert not torch.equal(means[1], means[2])
    assert norm.training


def test_what_was_frozen_before_stays_so():
    loop = loop_of("torch", Freeze(["0", "2.bias"], until="1 epoch"))
    loop.model[0].bias.requires_grad_(False)
    start = [p.detach().clone() for p in loop.model.parameters()]
    loop.fit(epochs=2)
    changed = [not torch.equal(a, b) for a, b in zip(start, loop.model.parameters(), strict=True)]
    assert changed == [True, False, True, True]
    assert [p.requires_grad for p in loop.model.parameters()] == [True, False, True, True]


def test_flags_come_back_after_the_run_and_after_an_error():
    loop = loop_of("keras", Freeze("first"))
    loop.fit(epochs=1)
    assert [layer.trainable for layer in loop.model.layers] == [True, True]

    @loop.on(Event.BATCH_END)
    def fail(state):
        raise OSError("broken")

    with pytest.raises(OSError, match="broken"):
        loop.fit(epochs=1)
    assert [layer.trainable for layer in loop.model.layers] == [True, True]


def test_each_set_has_programs_of_its_own():
    loop = loop_of("torch", Freeze("0", until="2 epochs"), mode="recorded", val=False)
    loop.fit(epochs=4)
    record = next(c for c in loop.callbacks if isinstance(c, Record))
    assert sum(r.program is not None for r in record.recordings.values()) == 2


@pytest.mark.parametrize("order", [[0, 1], [1, 0]], ids=["Freeze first", "Accumulate first"])
def test_beside_windows_steps_stay_recorded(order):
    """Accumulate asks what is trainable after all have heard BATCH_BEGIN."""
    both = [Freeze("0", until=2), Accumulate(2)]
    loop = loop_of("torch", *[both[place] for place in order], mode="recorded", val=False)
    loop.fit(epochs=6)  # 3 updates each
    assert replays(loop) >= 20


def test_what_can_be_named():
    inside = {
        "0": {"0.weight", "0.bias"},
        "*.bias": {"0.bias", "2.bias"},
        "2.weight": {"2.weight"},
        "[02]": {"0.weight", "0.bias", "2.weight", "2.bias"},
    }
    from fitkit.tune.frozen import found_in

    model = loop_of("torch").model
    for what, names in inside.items():
        assert set(found_in(model, what).names.values()) == names
    assert set(found_in(model, model[0]).names.values()) == {"0.weight", "0.bias"}
    by_function = found_in(model, lambda name: name.endswith("weight"))
    assert set(by_function.names.values()) == {"0.weight", "2.weight"}
    keras_model = loop_of("keras").model
    layer = keras_model.layers[0]
    for what in ("first", "f*", layer, [layer], lambda name: name == "first"):
        found = found_in(keras_model, what).names
        assert set(found) == {id(v.value) for v in layer.weights}


@pytest.mark.parametrize(
    ("freezes", "words"),
    [
        ([Freeze("encoder")], ["'encoder'", "names nothing"]),
        ([Freeze("*")], ["nothing to train"]),
        ([Freeze("0"), Freeze("0.bias", until=3)], ["two Freeze", "0.bias"]),
    ],
)
def test_wrong_parts_are_refused_before_the_first_update(freezes, words):
    loop = loop_of("torch", *freezes)
    with pytest.raises(ConfigError) as caught:
        loop.fit(epochs=1)
    first = str(caught.value).splitlines()[0]
    assert len(first) <= 120
    assert all(word in first for word in words), first
    assert loop.state.num_batches == 0
    assert all(p.requires_grad for p in loop.model.parameters())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"until": "3 minutes"}, ["until='3 minutes'", "epochs"]),
        ({"start": "3 epochs", "until": "3 epochs"}, ["ends before it begins"]),
        ({"start": 0}, ["start=0"]),
        ({"until": 1.5}, ["until=1.5"]),
    ],
)
def test_wrong_points_are_refused(options, words):
    with pytest.raises(ConfigError) as caught:
        Freeze("0", **options)
    assert all(word in str(caught.value).splitlines()[0] for word in words)
