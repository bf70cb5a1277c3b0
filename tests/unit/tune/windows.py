"""Data, models and loops written by hand, for what changes gradients and weights."""

import keras
import pytest
import torch
from torch import nn

from fitkit import FitLoop, supervised


def data(num, *, width=6, classes=4, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(num, width, generator=generator).to(dtype)
    return x, torch.randint(0, classes, (num,), generator=generator)


def batches(num, size, **options):
    """Batches of `size`, the last one smaller; a list has a length."""
    parts = zip(*(tensor.split(size) for tensor in data(num, **options)), strict=True)
    return list(parts)


class WithoutLength:
    """A loader that cannot tell how many batches it has."""

    def __init__(self, given):
        self.given = given

    def __iter__(self):
        return iter(self.given)


def joined(given, size):
    """Each `size` batches as one large batch."""
    chunks = [given[i : i + size] for i in range(0, len(given), size)]
    return [tuple(torch.cat(part) for part in zip(*chunk, strict=True)) for chunk in chunks]


def torch_mlp(dtype=torch.float32):
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4)).to(dtype)


def keras_mlp(**options):
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Dense(8, activation="tanh"), keras.layers.Dense(4, **options)]
    return keras.Sequential([keras.Input((6,)), *layers])


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)


def fused_adam(model):
    return torch.optim.Adam(model.parameters(), lr=0.05, fused=True)


def keras_adam(model=None, **options):
    return keras.optimizers.Adam(0.05, **options)


def crossentropy():
    return nn.CrossEntropyLoss()


def keras_crossentropy(**options):
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, **options)


def loop_of(model, loader, *callbacks, optimizer=None, loss=None, val=None, metrics=()):
    """A loop over `supervised`, by default with SGD and torch's cross-entropy."""
    stack = supervised(
        loss=loss or crossentropy(), optimizer=optimizer or sgd(model), metrics=metrics
    )
    return FitLoop(model, loader, val, callbacks=[*stack, *callbacks])


def weights(model):
    """Copies of all weights, in the order of the layers."""
    tensors = [v.value for v in model.weights] if isinstance(model, keras.Model) else None
    return [t.detach().clone() for t in tensors or [*model.parameters(), *model.buffers()]]


def equal(one, other):
    return len(one) == len(other) and all(map(torch.equal, one, other))


def distance(one, other):
    return max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True))


def refused(loop, error, *parts, epochs=1):
    """Demand that `fit` raises before an update, with all `parts` in the message."""
    before = weights(loop.model)
    with pytest.raises(error) as raised:
        loop.fit(epochs=epochs)
    message = str(raised.value)
    assert [part for part in parts if part not in message] == [], message
    assert len(message.splitlines()[0]) <= 120, message
    assert equal(weights(loop.model), before)
