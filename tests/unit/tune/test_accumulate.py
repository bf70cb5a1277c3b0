"""Accumulate: several batches make the update of the one large batch."""

import copy
from contextlib import nullcontext

import keras
import pytest
import torch
from torch import nn

from fitkit import (
    Accumulate,
    Backward,
    Callback,
    ConfigError,
    FitLoop,
    Forward,
    Record,
    TorchLoss,
    TorchStep,
    Turn,
    ZeroGrad,
)
from fitkit.tune import accumulate
from fitkit.tune.batch_weight import BatchWeight
from fitkit.tune.window import Window
from tests.unit.record.loops import compare
from tests.unit.tune import windows as w

TORCH = {"torch": (w.torch_mlp, w.sgd, w.crossentropy)}
KERAS = {"Keras": (w.keras_mlp, w.keras_adam, w.keras_crossentropy)}
MIXED = {
    "torch, Keras optimizer": (w.torch_mlp, w.keras_adam, w.crossentropy),
    "Keras, torch optimizer": (w.keras_mlp, w.sgd, w.crossentropy),
}
PARTS = {**TORCH, **KERAS, **MIXED}


def run(parts, loader, *callbacks, epochs=2):
    make_model, make_optimizer, make_loss = parts
    model = make_model()
    loop = w.loop_of(model, loader, *callbacks, optimizer=make_optimizer(model), loss=make_loss())
    loop.fit(epochs=epochs)
    return loop


@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
@pytest.mark.parametrize("num", [64, 61, 52], ids=["whole", "ragged batch", "ragged window"])
@pytest.mark.parametrize("with_length", [True, False])
def test_equals_the_large_batch(parts, num, with_length):
    small = w.batches(num, 8)
    small_loop = run(parts, small if with_length else w.WithoutLength(small), Accumulate(3))
    large_loop = run(parts, w.joined(small, 3))
    assert w.distance(w.weights(small_loop.model), w.weights(large_loop.model)) < 2e-6
    assert small_loop.history["loss"] == pytest.approx(large_loop.history["loss"], rel=1e-6)
    assert small_loop.state.num_updates == large_loop.state.num_updates


def test_equals_the_large_batch_in_double_precision():
    small = w.batches(61, 8, dtype=torch.float64)
    parts = (lambda: w.torch_mlp(torch.float64), w.sgd, w.crossentropy)
    ours, large = run(parts, small, Accumulate(3)), run(parts, w.joined(small, 3))
    assert w.distance(w.weights(ours.model), w.weights(large.model)) < 1e-14


def test_a_plain_mean_of_the_batches_is_another_number(monkeypatch):
    """The negative control: dividing by the number of batches is wrong where one is smaller."""
    each_counts_one = BatchWeight(lambda state: 8)
    monkeypatch.setattr(accumulate, "batch_weight_of", lambda loop, turn: each_counts_one)
    small = w.batches(61, 8)
    parts = TORCH["torch"]
    wrong, large = run(parts, small, Accumulate(3)), run(parts, w.joined(small, 3))
    assert w.distance(w.weights(wrong.model), w.weights(large.model)) > 1e-3


def test_windows_of_equal_batches_are_the_sum_by_hand_bit_by_bit():
    small, model = w.batches(64, 8), w.torch_mlp()
    optimizer, loss = w.sgd(model), nn.CrossEntropyLoss()
    for begin in range(0, 8, 4):
        optimizer.zero_grad()
        for x, y in small[begin : begin + 4]:
            loss(model(x), y).backward()
        for parameter in model.parameters():
            parameter.grad /= 4
        optimizer.step()
    ours = run(TORCH["torch"], small, Accumulate(4), epochs=1)
    assert w.equal(w.weights(ours.model), w.weights(model))


def test_one_batch_per_window_changes_nothing():
    small = w.batches(64, 8)
    one, none = (run(TORCH["torch"], small, *cbs) for cbs in ([Accumulate(1)], []))
    assert w.equal(w.weights(one.model), w.weights(none.model))
    assert one.history["loss"] == none.history["loss"]


# -- losses that are no mean over samples ----------------------------------------------------------


def with_ignored(given):
    """Every third target of the first half of a batch counts for nothing."""
    changed = []
    for x, y in given:
        y = y.clone()
        y[: len(y) // 2 : 3] = -100
        changed.append((x, y))
    changed[1] = (changed[1][0], torch.full_like(changed[1][1], -100))  # a batch where none counts
    return changed


def class_weighted():
    return nn.CrossEntropyLoss(weight=torch.tensor([0.2, 1.0, 3.0, 0.5]))


CASES = {
    "ignore_index": (lambda: nn.CrossEntropyLoss(), with_ignored),
    "class weights": (class_weighted, None),
    "class weights, ignore_index": (class_weighted, with_ignored),
    "class weights, label smoothing": (
        lambda: nn.CrossEntropyLoss(torch.tensor([0.2, 1.0, 3.0, 0.5]), label_smoothing=0.1),
        None,
    ),
    "sum": (lambda: nn.CrossEntropyLoss(reduction="sum"), None),
    "none": (lambda: nn.CrossEntropyLoss(reduction="none"), None),
    "a function": (lambda: nn.functional.cross_entropy, with_ignored),
    "Keras sum": (lambda: w.keras_crossentropy(reduction="sum"), None),
    "Keras mean": (lambda: w.keras_crossentropy(reduction="mean"), None),
    "Keras ignore_class": (lambda: w.keras_crossentropy(ignore_class=-100), with_ignored),
}


@pytest.mark.parametrize(("make_loss", "change"), CASES.values(), ids=CASES)
@pytest.mark.parametrize("with_length", [True, False])
def test_other_losses_equal_the_large_batch(make_loss, change, with_length):
    small = w.batches(61, 8)
    small = change(small) if change else small
    parts = (w.torch_mlp, lambda model: torch.optim.SGD(model.parameters(), lr=0.01), make_loss)
    ours = run(parts, small if with_length else w.WithoutLength(small), Accumulate(3))
    large = run(parts, w.joined(small, 3))
    assert w.distance(w.weights(ours.model), w.weights(large.model)) < 2e-6
    assert ours.history["loss"] == pytest.approx(large.history["loss"], rel=2e-6)


@pytest.mark.parametrize(
    "make_loss",
    [
        lambda: nn.CrossEntropyLoss(reduction="none"),
        w.keras_crossentropy,
        lambda: w.keras_crossentropy(reduction="mean_with_sample_weight"),
    ],
    ids=["torch", "Keras", "Keras mean_with_sample_weight"],
)
def test_sample_weights_equal_the_large_batch(make_loss):
    generator = torch.Generator().manual_seed(3)
    small = [(x, y, torch.rand(len(y), generator=generator)) for x, y in w.batches(61, 8)]
    parts = (w.torch_mlp, w.sgd, make_loss)
    ours, large = run(parts, small, Accumulate(3)), run(parts, w.joined(small, 3))
    assert w.distance(w.weights(ours.model), w.weights(large.model)) < 3e-6
    assert ours.history["loss"] == pytest.approx(large.history["loss"], rel=2e-6)


def masked_model():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((5,), dtype="int32")
    x = keras.layers.Embedding(7, 6, mask_zero=True)(inputs)
    return keras.Model(inputs, keras.layers.Dense(4)(x))


def test_masked_sequences_equal_the_large_batch():
    generator = torch.Generator().manual_seed(3)
    x = torch.randint(0, 7, (52, 5), generator=generator)
    x[:, 0] = 1
    y = torch.randint(0, 4, (52, 5), generator=generator)
    small = list(zip(x.split(8), y.split(8), strict=True))
    parts = (masked_model, w.keras_adam, w.keras_crossentropy)
    ours, large = run(parts, small, Accumulate(3)), run(parts, w.joined(small, 3))
    assert w.distance(w.weights(ours.model), w.weights(large.model)) < 2e-6
    assert ours.history["loss"] == pytest.approx(large.history["loss"], rel=2e-6)


def test_regularizers_count_once():
    small = w.batches(52, 8)
    parts = (lambda: w.keras_mlp(kernel_regularizer="l2"), w.keras_adam, w.keras_crossentropy)
    ours, large = run(parts, small, Accumulate(3)), run(parts, w.joined(small, 3))
    assert w.distance(w.weights(ours.model), w.weights(large.model)) < 2e-6


def test_a_sum_with_regularizers_is_refused():
    model = w.keras_mlp(kernel_regularizer="l2")
    loss = w.keras_crossentropy(reduction="sum")
    loop = w.loop_of(model, w.batches(64, 8), Accumulate(4), optimizer=w.keras_adam(), loss=loss)
    w.refused(loop, ConfigError, "the loss is a sum over samples", "use a loss that is a mean")


def compiled_model(loss):
    model = w.keras_mlp()
    model.compile(optimizer=w.keras_adam(), loss=loss)
    return model


def test_compiled_models_equal_the_large_batch():
    from fitkit import compiled

    small = w.batches(61, 8)

    def trained(loader, *callbacks):
        model = compiled_model(w.keras_crossentropy(reduction="mean_with_sample_weight"))
        loop = FitLoop(model, loader).attach(compiled(), *callbacks)
        loop.fit(epochs=2)
        return loop

    ours, large = trained(small, Accumulate(3)), trained(w.joined(small, 3))
    assert w.distance(w.weights(ours.model), w.weights(large.model)) < 2e-6


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, -1, 1.5, True, float("nan"), "4"])
def test_no_positive_int(n):
    with pytest.raises(ConfigError, match="num_batches=.*expected an int of at least 1"):
        Accumulate(n)


def test_more_batches_than_an_epoch_has():
    loop = w.loop_of(w.torch_mlp(), w.batches(64, 8), Accumulate(9))
    w.refused(loop, ConfigError, "Accumulate(9)", "8 batches", "Use Accumulate(8)")


def test_a_keras_optimizer_that_accumulates():
    optimizer = w.keras_adam(gradient_accumulation_steps=2)
    loop = w.loop_of(w.torch_mlp(), w.batches(64, 8), Accumulate(4), optimizer=optimizer)
    w.refused(loop, ConfigError, "Accumulate", "Adam(gradient_accumulation_steps=2)", "both")


def test_a_keras_optimizer_that_accumulates_inside_another_one():
    inner = w.keras_adam(gradient_accumulation_steps=2)
    optimizer = keras.optimizers.LossScaleOptimizer(inner)
    loop = w.loop_of(w.torch_mlp(), w.batches(64, 8), Accumulate(4), optimizer=optimizer)
    w.refused(loop, ConfigError, "Adam(gradient_accumulation_steps=2)")


def test_two_of_them():
    loop = w.loop_of(w.torch_mlp(), w.batches(64, 8), Accumulate(4))
    with pytest.raises(ConfigError, match="both Accumulate"):
        loop.attach(Accumulate(2))


def turn_parts(model, optimizer):
    loss = TorchLoss(nn.CrossEntropyLoss())
    return [ZeroGrad(), Forward(), loss, Backward(), TorchStep(optimizer)]


def test_inside_of_a_turn():
    model = w.torch_mlp()
    turn = Turn("only", [*turn_parts(model, w.sgd(model)), Accumulate(2)])
    loop = FitLoop(model, w.batches(64, 8), callbacks=[turn])
    w.refused(loop, ConfigError, "Accumulate is in the turn 'only'")


# -- turns -----------------------------------------------------------------------------------------


def two_turns(loader, *callbacks):
    """Two turns that train the two layers of a model, one after the other."""
    model = w.torch_mlp()
    turns = []
    for name, part in [("first", model[0]), ("second", model[2])]:
        optimizer = torch.optim.SGD(part.parameters(), lr=0.5)
        loss = TorchLoss(nn.CrossEntropyLoss())
        turns.append(
            Turn(name, [ZeroGrad(), Forward(), loss, Backward(part), TorchStep(optimizer)])
        )
    return FitLoop(model, loader, callbacks=[*turns, *callbacks])


def two_turns_by_hand(given, size, with_length):
    """Without a length, the end of the loader closes a window: then all turns have gradients."""
    model, loss = w.torch_mlp(), nn.CrossEntropyLoss()
    parts = [model[0], model[2]]
    optimizers = [torch.optim.SGD(part.parameters(), lr=0.5) for part in parts]

    def update(turn, sums):
        for parameter, *each in zip(parts[turn].parameters(), *sums[turn], strict=True):
            parameter.grad = torch.stack(each).sum(0)
        optimizers[turn].step()

    for begin in range(0, len(given), size):
        window = given[begin : begin + size]
        total, sums = sum(len(y) for _, y in window), [[], []]
        late = len(window) < size and not with_length
        for index, (x, y) in enumerate(window):
            for turn, part in enumerate(parts):
                gradients = torch.autograd.grad(loss(model(x), y), list(part.parameters()))
                sums[turn].append([g * len(y) / total for g in gradients])
                if index == len(window) - 1 and not late:
                    update(turn, sums)
        for turn in range(2) if late else ():
            update(turn, sums)
    return w.weights(model)


@pytest.mark.filterwarnings("ignore:the optimizer leaves out")
@pytest.mark.parametrize("with_length", [True, False])
def test_each_turn_has_a_window_of_its_own(with_length):
    small = w.batches(61, 8)
    loop = two_turns(small if with_length else w.WithoutLength(small), Accumulate(3))
    loop.fit(epochs=1)
    assert loop.state.turn_updates == {"first": 3, "second": 3}
    by_hand = two_turns_by_hand(small, 3, with_length)
    assert w.distance(w.weights(loop.model), by_hand) < 2e-6


# -- weights that get a gradient now and then ------------------------------------------------------


class Branching(nn.Module):
    """Uses its second layer only where `self.deep` says so."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.deep = nn.Linear(6, 4), nn.Linear(4, 4), False

    def forward(self, x):
        x = self.first(x)
        return self.second(x) if self.deep else x


class Choose(Callback):
    """Say which batches go through both layers."""

    def __init__(self, deep):
        self.deep = deep

    def on_batch_begin(self, state):
        state.model.deep = state.batch_index in self.deep


@pytest.mark.parametrize("recorded", [False, True])
def test_weights_without_a_gradient_stay_without_one(recorded):
    small, deep = w.batches(96, 8), {1, 3, 6, 7}  # windows of two: no, yes; no, yes; none; both...
    torch.manual_seed(0)
    ours = Branching()
    by_hand = copy.deepcopy(ours)
    record = [Record("interpret")] if recorded else []
    loop = w.loop_of(ours, small, Choose(deep), Accumulate(2), *record)
    loop.fit(epochs=4)
    optimizer, loss = w.sgd(by_hand), nn.CrossEntropyLoss()
    for _ in range(4):
        for begin in range(0, 12, 2):
            optimizer.zero_grad()
            for index in (begin, begin + 1):
                by_hand.deep = index in deep
                x, y = small[index]
                (loss(by_hand(x), y) / 2).backward()
            optimizer.step()
    assert w.distance(w.weights(ours), w.weights(by_hand)) < 5e-6


# -- recorded --------------------------------------------------------------------------------------


slow = pytest.mark.slow
RECORDED = [
    pytest.param(w.torch_mlp, w.sgd, w.crossentropy, True, id="torch", marks=slow),
    pytest.param(w.torch_mlp, w.sgd, w.crossentropy, False, id="torch, no length", marks=slow),
    pytest.param(w.torch_mlp, w.fused_adam, w.crossentropy, True, id="fused Adam", marks=slow),
    pytest.param(w.keras_mlp, w.keras_adam, w.keras_crossentropy, True, id="Keras", marks=slow),
    pytest.param(w.keras_mlp, w.keras_adam, w.keras_crossentropy, False, id="Keras, no length"),
    pytest.param(w.torch_mlp, w.sgd, class_weighted, False, id="class weights", marks=slow),
]


@pytest.mark.parametrize(("make_model", "make_optimizer", "make_loss", "with_length"), RECORDED)
def test_recorded_it_is_the_same_bit_by_bit(make_model, make_optimizer, make_loss, with_length):
    small = w.batches(76, 8)  # 10 batches, the last one smaller: windows of 3, 3, 3, 1

    def make():
        model = make_model()
        loader = small if with_length else w.WithoutLength(small)
        options = {"optimizer": make_optimizer(model), "loss": make_loss()}
        return w.loop_of(model, loader, Accumulate(3), **options)

    recorded = compare(make, epochs=6)
    assert recorded.refusals == [], recorded.warnings


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the optimizer leaves out")
def test_recorded_turns_are_the_same_bit_by_bit():
    recorded = compare(lambda: two_turns(w.batches(76, 8), Accumulate(3)), epochs=6)
    assert recorded.refusals == []


class Toggle(Callback):
    """Train the first layer in every other epoch."""

    def on_epoch_begin(self, state):
        state.model[0].requires_grad_(state.epoch % 2 == 0)


def toggled():
    loader = w.WithoutLength(w.batches(104, 8))
    return w.loop_of(w.torch_mlp(), loader, Toggle(), Accumulate(3))


def test_recorded_it_follows_what_is_trainable():
    recorded = compare(toggled, epochs=3)
    assert recorded.refusals == []


@pytest.mark.slow
@pytest.mark.parametrize("recalled", [True, False])
def test_a_window_that_replays_have_filled_is_closed_right(recalled, monkeypatch):
    """The eleventh epoch has replays alone, until the end of the loader closes a window.

    The negative control: a replay does not say which weights have got a gradient.
    """
    if not recalled:
        monkeypatch.setattr(Window, "recall", lambda self, trainable: None)
    with nullcontext() if recalled else pytest.raises(AssertionError):
        recorded = compare(toggled, epochs=11)
        assert recorded.refusals == []


def test_a_window_recalls_which_weights_have_got_a_gradient():
    weights = [nn.Parameter(torch.zeros(2)) for _ in range(2)]
    window, g = Window(), torch.ones(2)
    window.add([g, g.clone()], 1.0, opens=True, trainable="both")
    window.add([None, g.clone()], 1.0, opens=True, trainable="second")
    window.recall("both")  # as after a replay of the first of the two
    window.close(weights, divide=True)
    assert [p.grad is not None for p in weights] == [True, True]
    window.recall("second")
    window.close(weights, divide=True)
    assert [p.grad is not None for p in weights] == [False, True]
    assert not window.uneven
    window.add([g.clone(), None], 1.0, opens=False, trainable="second")
    assert window.uneven


# -- resume ----------------------------------------------------------------------------------------


def test_resumed_it_counts_batches_as_before():
    """A run that goes on with the smaller batch would round otherwise."""
    small = w.batches(61, 8)[::-1]  # the smaller batch is the first one
    first, second = Accumulate(3), Accumulate(3)
    run(TORCH["torch"], small, first, epochs=1)
    assert first.state_dict() == {"unit": 5}
    second.load_state_dict(first.state_dict())
    run(TORCH["torch"], w.batches(64, 8), second, epochs=1)
    assert second.state_dict() == {"unit": 5}
