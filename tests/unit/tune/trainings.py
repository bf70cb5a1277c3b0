"""Small trainings to compare: a loop with callbacks, and the same written by hand."""

import keras
import pytest
import torch

from fitkit import FitLoop, Record, TensorLoader, supervised

KINDS = ("torch", "keras")
MODES = ("eager", "recorded")
# Kind and mode; recorded Keras models show once more what the others show.
TRAININGS = [
    *(("torch", "eager"), ("keras", "eager"), ("torch", "recorded")),
    pytest.param("keras", "recorded", marks=pytest.mark.slow),
]
NUM_BATCHES = 5


def data(num=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(64, 4, generator=generator)
    y = x.sum(1, keepdim=True) + 0.1 * torch.randn(64, 1, generator=generator)
    return x[:num], y[:num]


def batches(num=40):
    return TensorLoader(*data(num), batch_size=8)


def model_of(kind):
    keras.utils.clear_session()
    keras.utils.set_random_seed(1)
    if kind == "torch":
        linear = torch.nn.Linear
        return torch.nn.Sequential(linear(4, 8), torch.nn.Tanh(), linear(8, 1))
    dense = keras.layers.Dense
    layers = [keras.Input((4,)), dense(8, activation="tanh", name="first"), dense(1, name="last")]
    return keras.Sequential(layers)


def optimizer_of(kind, model, rate=0.05):
    if kind == "torch":
        return torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.1, fused=True)
    return keras.optimizers.AdamW(rate, weight_decay=0.1)


def loop_of(kind, *callbacks, mode="eager", val=True, rate=0.05, train=None, optimizer=None):
    """A loop that trains; `callbacks` are made by functions of the optimizer where they need it."""
    model = model_of(kind)
    optimizer = optimizer_of(kind, model, rate) if optimizer is None else optimizer(model)
    loss = torch.nn.MSELoss() if kind == "torch" else keras.losses.MeanSquaredError()
    loop = FitLoop(model, train or batches(), batches(16) if val else None)
    loop.attach(supervised(loss=loss, optimizer=optimizer))
    loop.attach(*[make(optimizer) if isinstance(make, Late) else make for make in callbacks])
    if mode == "recorded":
        loop.attach(Record("interpret", strict=True))
    return loop


class Late:
    """A callback that can only be made with the optimizer."""

    def __init__(self, make):
        self.make = make

    def __call__(self, optimizer):
        return self.make(optimizer)


def by_hand(kind, before_update, *, epochs=3, rate=0.05, frozen=lambda update: ()):
    """Train without fitkit; `before_update(optimizer, k)` changes what update k runs with."""
    model = model_of(kind)
    optimizer = optimizer_of(kind, model, rate)
    weights = weights_of(kind, model)
    if kind == "keras":
        optimizer.build(model.trainable_variables)
    update = 0
    for _ in range(epochs):
        for x, y in batches():
            before_update(optimizer, update)
            for weight in weights:
                weight.grad = None
            loss_of(kind, model(x), y).backward()
            for index in frozen(update):
                weights[index].grad = None
            apply(kind, optimizer, model)
            update += 1
    return [weight.detach().clone() for weight in weights]


def loss_of(kind, outputs, targets):
    if kind == "torch":
        return torch.nn.functional.mse_loss(outputs, targets)
    return keras.losses.MeanSquaredError()(targets, outputs)


@torch.no_grad()
def apply(kind, optimizer, model):
    if kind == "torch":
        optimizer.step()
        return
    variables = [v for v in model.trainable_variables if v.value.grad is not None]
    optimizer.apply([v.value.grad for v in variables], variables)


def weights_of(kind, model):
    if kind == "torch":
        return list(model.parameters())
    return [variable.value for variable in model.trainable_variables]


def assert_equal(loop, kind, expected):
    got = weights_of(kind, loop.model)
    assert len(got) == len(expected)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def replays(loop):
    """How many steps ran from a program."""
    record = next(c for c in loop.callbacks if isinstance(c, Record))
    return sum(r.program.num_replays for r in record.recordings.values() if r.program)
