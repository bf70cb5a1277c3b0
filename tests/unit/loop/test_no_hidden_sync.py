"""Between two logs a step reads nothing from the device; what upstream reads is listed by name."""

import traceback
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import keras
import pytest
import torch
import torchmetrics
from torch import nn

from fitkit import Callback, FitLoop, TensorLoader, supervised

READS = [
    *("item", "tolist", "numpy", "cpu", "nonzero", "is_nonzero"),
    *("__float__", "__int__", "__bool__", "__index__", "__array__", "__complex__"),
]
X, Y = torch.randn(64, 4), torch.randint(0, 3, (64,))
STEPS = 6


class Reads:
    """Counts, by who asks, what Python reads of tensors while it is armed."""

    def __init__(self):
        self.armed = False
        self.by = Counter()

    def note(self, name):
        if self.armed:
            frames = [f for f in traceback.extract_stack()[:-2] if "torch/_" not in f.filename]
            self.by[f"{'/'.join(Path(frames[-1].filename).parts[-2:])} {name}"] += 1

    @property
    def total(self):
        return self.by.total()

    def rewrap(self, name):
        original = getattr(torch.Tensor, name)

        def read(tensor, *arguments, **keywords):
            self.note(name)
            armed, self.armed = self.armed, False  # float() of a tensor asks item(): one read
            try:
                return original(tensor, *arguments, **keywords)
            finally:
                self.armed = armed

        return read


class Arm(Callback):
    """Counts from the second batch of a pass on: the first one is checked."""

    def __init__(self, reads):
        self.reads = reads

    def on_batch_begin(self, state):
        self.reads.armed = state.batch_index > 0


class Disarm(Arm):
    """Ends the count of a step."""

    on_batch_begin = Callback.on_batch_begin

    def on_batch_end(self, state):
        self.reads.armed = False


@contextmanager
def counted(monkeypatch):
    reads = Reads()
    with monkeypatch.context() as patch:
        for name in READS:
            patch.setattr(torch.Tensor, name, reads.rewrap(name))
        yield reads


def torch_stack(model, optimizer, **arguments):
    return supervised(loss=nn.CrossEntropyLoss(), optimizer=optimizer(model), **arguments)


def torch_model():
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.1), nn.Linear(8, 3))


def keras_model():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])


def reads_of(monkeypatch, model, callbacks, *extra):
    """Train two epochs with the counter armed from the first hook of a batch to the last."""
    with counted(monkeypatch) as reads:
        loop = FitLoop(model, TensorLoader(X, Y, batch_size=8, shuffle=True))
        loop.attach(Arm(reads), *callbacks, *extra, Disarm(reads)).fit(epochs=2)
        return reads


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def fused_adam(model):
    return torch.optim.Adam(model.parameters(), fused=True)


def default_adam(model):
    return torch.optim.Adam(model.parameters())


@pytest.mark.parametrize("optimizer", [sgd, fused_adam])
def test_a_step_of_a_torch_module_reads_nothing(monkeypatch, optimizer):
    model = torch_model()
    reads = reads_of(monkeypatch, model, torch_stack(model, optimizer))
    assert reads.by == {}


def test_the_metrics_of_keras_read_nothing(monkeypatch):
    model = torch_model()
    metrics = [keras.metrics.SparseCategoricalAccuracy()]
    reads = reads_of(monkeypatch, model, torch_stack(model, sgd, metrics=metrics))
    assert reads.by == {}


def test_torchmetrics_that_validate_nothing_read_nothing(monkeypatch):
    model = torch_model()
    accuracy = torchmetrics.Accuracy("multiclass", num_classes=3, validate_args=False)
    reads = reads_of(monkeypatch, model, torch_stack(model, sgd, metrics=[accuracy]))
    assert reads.by == {}


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_step_of_a_keras_model_reads_nothing(monkeypatch, optimizer):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    metrics = [keras.metrics.SparseCategoricalAccuracy()]
    stack = supervised(loss=loss, optimizer=optimizer, metrics=metrics)
    reads = reads_of(monkeypatch, keras_model(), stack)
    assert reads.by == {}


@pytest.mark.parametrize(
    "peek",
    [
        lambda t: t.item(),
        lambda t: float(t),
        lambda t: int(t),
        lambda t: bool(t),
        lambda t: t.cpu(),
        lambda t: t.detach().numpy(),
        lambda t: t.tolist(),
    ],
)
def test_a_callback_that_reads_is_counted(monkeypatch, peek):
    class Peeks(Callback):
        def on_loss_ready(self, state):
            peek(state.loss.detach())

    model = torch_model()
    reads = reads_of(monkeypatch, model, torch_stack(model, sgd), Peeks())
    assert sum(reads.by.values()) == 14  # two passes of 8 batches, without their first
    assert all("test_no_hidden_sync.py" in name for name in reads.by)
