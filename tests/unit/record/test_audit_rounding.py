"""What a compiler rounds differently is no error, unless the program itself is another one."""

import keras
import pytest
import torch

from fitkit import FitLoop, Record, TensorLoader, supervised
from fitkit.record import audit
from fitkit.record.program import Program


class Rounds:
    """Stands for a compiler: after each run it moves a bias whose gradient is only rounding."""

    def __init__(self, run, bias):
        self.run, self.bias = run, bias

    def __call__(self, inputs):
        results = self.run(inputs)
        with torch.no_grad():
            self.bias.add_(1e-3)
        return results


def run(monkeypatch, *, wrong=()):
    """A network with a bias before a batch normalization; returns its record."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(6), layers.BatchNormalization(), layers.Dense(3)]
    )
    moved = [model.layers[0].bias.value, *(model.layers[i].kernel.value for i in wrong)]

    def compiled(self, backend, inputs, *, options=None):
        for tensor in moved:
            self._run = Rounds(self._run, tensor)
        self.backend = backend

    monkeypatch.setattr(Program, "compile", compiled)
    stack = supervised(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        optimizer=keras.optimizers.Adam(1e-3),
    )
    loader = TensorLoader(torch.randn(64, 4), torch.arange(64) % 3, batch_size=8)
    record = Record("inductor")
    FitLoop(model, loader, callbacks=[stack, record]).fit(epochs=1)
    return record


def test_a_bias_that_is_only_rounding_is_accepted(monkeypatch):
    record = run(monkeypatch)
    assert all(each.program is not None for each in record.recordings.values())


def test_without_a_second_look_it_is_refused(monkeypatch):
    monkeypatch.setattr(audit, "_is_rounding", lambda *args: False)
    with pytest.warns(UserWarning, match="differs from the eager step"):
        run(monkeypatch)


def test_a_traced_program_that_is_another_one_is_refused(monkeypatch):
    monkeypatch.setattr(audit, "torch", Unequal())
    with pytest.warns(UserWarning, match="differs from the eager step"):
        run(monkeypatch)


class Unequal:
    """torch, but for `equal`, in whose eyes nothing is: the operations differ as well."""

    def __getattr__(self, name):
        return getattr(torch, name)

    def equal(self, one, other):
        return one.dtype == torch.float64 and torch.equal(one, other)
