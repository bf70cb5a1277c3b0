"""Between two logs a step reads nothing from the device; docs/syncs.md lists what upstream reads.

Two nets: the methods by which Python reads a tensor, and the operators whose result has a shape, or
is a number, that depends on the data (`torch.unique`, `aten._local_scalar_dense`).
"""

import re
from pathlib import Path

import keras
import pytest
import torch
import torchmetrics
from torch import nn

from fitkit import Callback, FitLoop, TensorLoader, supervised
from fitkit.testing.reads import counted_reads

X, Y = torch.randn(64, 4), torch.randint(0, 3, (64,))
ROOT = Path(__file__).parents[3]


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


def torch_stack(model, optimizer, **arguments):
    return supervised(loss=nn.CrossEntropyLoss(), optimizer=optimizer(model), **arguments)


def torch_model():
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.1), nn.Linear(8, 3))


def keras_model():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])


def reads_of(model, callbacks, *extra, targets=Y):
    """Train two epochs with the counter armed from the first hook of a batch to the last."""
    with counted_reads() as reads:
        loop = FitLoop(model, TensorLoader(X, targets, batch_size=8, shuffle=True))
        loop.attach(Arm(reads), *callbacks, *extra, Disarm(reads)).fit(epochs=2)
        return reads


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def fused_adam(model):
    return torch.optim.Adam(model.parameters(), fused=True)


@pytest.mark.parametrize("optimizer", [sgd, fused_adam])
def test_a_step_of_a_torch_module_reads_nothing(optimizer):
    model = torch_model()
    reads = reads_of(model, torch_stack(model, optimizer))
    assert reads.by == {}


def test_the_metrics_of_keras_read_nothing():
    model = torch_model()
    metrics = [keras.metrics.SparseCategoricalAccuracy()]
    reads = reads_of(model, torch_stack(model, sgd, metrics=metrics))
    assert reads.by == {}


def test_a_step_of_a_keras_model_reads_nothing():
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    metrics = [keras.metrics.SparseCategoricalAccuracy()]
    stack = supervised(loss=loss, optimizer="adam", metrics=metrics)
    reads = reads_of(keras_model(), stack)
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
def test_a_callback_that_reads_is_counted(peek):
    class Peeks(Callback):
        def on_loss_ready(self, state):
            peek(state.loss.detach())

    model = torch_model()
    reads = reads_of(model, torch_stack(model, sgd), Peeks())
    assert sum(reads.by.values()) == 14  # two passes of 8 batches, without their first
    assert all("<lambda>" in name for name in reads.by)


def with_torch(name, *, lr=1e-3, **arguments):
    """A torch module of six parameters with a torch optimizer."""
    model = torch_model()
    optimizer = getattr(torch.optim, name)(model.parameters(), lr=lr, **arguments)
    return model, supervised(loss=nn.CrossEntropyLoss(), optimizer=optimizer)


def with_keras(optimizer="adam", layers=(), metrics=()):
    """A Keras model with a Keras optimizer."""
    model = keras.Sequential([keras.Input((4,)), *layers, keras.layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return model, supervised(loss=loss, optimizer=optimizer, metrics=metrics)


def several_classes(**arguments):
    """Classes with a metric of torchmetrics."""
    model = torch_model()
    metric = torchmetrics.Accuracy("multiclass", num_classes=3, **arguments)
    return model, torch_stack(model, sgd, metrics=[metric])


def two_classes(**arguments):
    """A binary task with a metric of torchmetrics."""
    model = nn.Sequential(nn.Linear(4, 1), nn.Flatten(0))
    metric = torchmetrics.Accuracy("binary", **arguments)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    stack = supervised(loss=nn.BCEWithLogitsLoss(), optimizer=optimizer, metrics=[metric])
    return model, stack


def docs_rows():
    """The table of docs/syncs.md: what, reads per step, which."""
    lines = (ROOT / "docs" / "syncs.md").read_text().splitlines()
    rows = [line.strip("|").split("|") for line in lines if line.startswith("|")][2:]
    return {
        what.strip(): (reads.strip(), re.findall("`(.+?)`", which)) for what, reads, which in rows
    }


OPTIMIZERS = keras.optimizers
SCHEDULES = OPTIMIZERS.schedules
MEASURED = {
    "torch `SGD`": lambda: [with_torch(n) for n in ("SGD", "RMSprop", "Adadelta")],
    "torch `SGD`, ": lambda: [with_torch("Adam", fused=True)],
    "torch `SGD` with a tensor": lambda: [with_torch("SGD", lr=torch.tensor(1e-3))],
    "torch `Adam(fused=True)` with": lambda: [
        with_torch("Adam", lr=torch.tensor(1e-3), fused=True)
    ],
    "torch `Adam`": lambda: [
        with_torch(n) for n in ("Adam", "AdamW", "RAdam", "Adagrad", "Adamax")
    ],
    "torch `NAdam`": lambda: [with_torch("NAdam")],
    "Keras `Adam`": lambda: [with_keras(n) for n in ("adam", "adamw", "rmsprop", "adagrad")],
    "Keras `SGD`": lambda: [with_keras("sgd"), with_keras("adadelta")],
    "Keras `Nadam`": lambda: [with_keras("nadam")],
    "Keras `gradient_acc": lambda: [with_keras(OPTIMIZERS.Adam(gradient_accumulation_steps=2))],
    "Keras `LossScale": lambda: [with_keras(OPTIMIZERS.LossScaleOptimizer(OPTIMIZERS.Adam()))],
    "Keras `LossScaleOptimizer(": lambda: [
        with_keras(
            OPTIMIZERS.LossScaleOptimizer(OPTIMIZERS.Adam(gradient_accumulation_steps=2)),
        )
    ],
    "Keras `ema_overwrite": lambda: [
        with_keras(OPTIMIZERS.Adam(use_ema=True, ema_overwrite_frequency=3))
    ],
    "Keras `use_ema": lambda: [
        with_keras(OPTIMIZERS.Adam(**option))
        for option in ({"use_ema": True}, {"global_clipnorm": 1.0}, {"loss_scale_factor": 8.0})
    ],
    "Keras schedules": lambda: [
        with_keras(OPTIMIZERS.Adam(rate))
        for rate in (
            SCHEDULES.ExponentialDecay(0.01, 3, 0.9),
            SCHEDULES.InverseTimeDecay(0.01, 3, 0.5),
            SCHEDULES.PolynomialDecay(0.01, 8),
            SCHEDULES.PiecewiseConstantDecay([3, 6], [0.01, 0.005, 0.001]),
            SCHEDULES.CosineDecay(0.01, 8),
            lambda: 0.01,
        )
    ],
    "Keras `CosineDecay(": lambda: [
        with_keras(OPTIMIZERS.Adam(rate))
        for rate in (
            SCHEDULES.CosineDecay(0.001, 8, warmup_target=0.01, warmup_steps=4),
            SCHEDULES.CosineDecayRestarts(0.01, 3),
        )
    ],
    "Keras metrics": lambda: [
        with_keras(metrics=[keras.metrics.SparseCategoricalAccuracy()]),
        with_keras(metrics=[keras.metrics.SparseTopKCategoricalAccuracy(k=2)]),
    ],
    "torchmetrics, several": lambda: [several_classes(validate_args=False)],
    "torchmetrics, two classes, `": lambda: [two_classes(validate_args=False)],
    "torchmetrics, two classes, v": lambda: [two_classes()],
    "Keras `GaussianNoise`": lambda: [with_keras(layers=[keras.layers.GaussianNoise(0.1)])],
}
PARAMETERS = 6  # of torch_model()
MEASURED_STEPS = 14  # two passes of 8 batches, without the first of each


@pytest.mark.parametrize("what", MEASURED)
def test_the_table_of_reads_in_the_docs(what):
    (reads, which) = next(v for name, v in docs_rows().items() if name.startswith(what))
    per_step = int(reads.split()[0]) * (PARAMETERS if "per parameter" in reads else 1)
    targets = (Y > 0).float() if "two classes" in what else Y
    for model, stack in MEASURED[what]():
        found = reads_of(model, stack, targets=targets)
        assert sorted(found.by) == sorted(which)
        assert found.by.total() == per_step * MEASURED_STEPS


def test_every_row_of_the_docs_is_measured():
    assert all(any(row.startswith(what) for what in MEASURED) for row in docs_rows())
