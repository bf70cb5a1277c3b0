"""The fences of the tracer: what a replay could not repeat is refused, naming the line."""

import random

import keras
import numpy as np
import pytest
import torch

from fitkit.record import Refused, trace
from fitkit.record.guard import OpGuard, ReadGuard
from tests.unit.record import steps

X, Y = torch.randn(8, 4), torch.arange(8)
WEIGHT = torch.nn.Parameter(torch.randn(4, 4))
COUNTER = torch.zeros((), dtype=torch.int64)


def _refusal(step, *inputs):
    with pytest.raises(Refused) as caught:
        trace(step, inputs or (X, Y))
    return caught.value


READS = {
    "bool": lambda x: x if x.sum() > 0 else -x,
    "int": lambda x: x * int(COUNTER),
    "float": lambda x: x * float(x.sum()),
    "item": lambda x: x * COUNTER.item(),
    "index": lambda x: x[: COUNTER.__index__()],
    "tolist": lambda x: x * COUNTER.tolist(),
    "numpy": lambda x: x * torch.from_numpy(WEIGHT.detach().numpy()),
    "array": lambda x: x * np.asarray(WEIGHT.detach()).sum(),
    "cpu": lambda x: x.cpu(),
    "text": lambda x: print(f"{x.sum():.2f}") or x,
    "membership": lambda x: x if 0.0 in x else -x,
    "number argument": lambda x: torch.full((2,), COUNTER.float()),
    "equality": lambda x: x if torch.equal(WEIGHT, WEIGHT) else -x,
}


@pytest.mark.parametrize("name", READS)
def test_reads_of_device_values_are_refused(name):
    verdict = _refusal(lambda batch: [READS[name](batch[0])])
    assert "host" in verdict.reason
    assert "test_refused.py" in verdict.where


def test_reads_hidden_in_cpp_pass_without_the_dispatch_guard(monkeypatch):
    def step(batch):
        return [torch.add(batch[0], batch[0], alpha=COUNTER)]

    monkeypatch.setattr(OpGuard, "__torch_dispatch__", _pass_on)
    frozen = trace(step, (X, Y))  # the counter's value became part of the graph
    assert frozen.state == []


def test_reads_pass_without_the_read_guard(monkeypatch):
    monkeypatch.setattr(ReadGuard, "__torch_function__", _pass_on)
    monkeypatch.setattr(OpGuard, "__torch_dispatch__", _pass_on)
    frozen = trace(lambda batch: [batch[0] * COUNTER.item()], (X, Y))
    assert frozen.state == []


def _pass_on(self, func, types, args=(), kwargs=None):
    return func(*args, **(kwargs or {}))


def test_data_dependent_shapes_are_refused():
    def step(batch):
        x, y = batch
        kept = x[y > 3]
        return [kept.sum() / kept.shape[0]]

    verdict = _refusal(step)
    assert "shape" in verdict.reason
    assert "kept = x[y > 3]" in verdict.where


@pytest.mark.parametrize("draw", [random.random, np.random.rand], ids=["random", "numpy"])
def test_host_random_numbers_are_refused(draw):
    assert "host generator" in _refusal(lambda batch: [batch[0] * draw()]).reason


def test_own_generators_are_refused():
    own = torch.Generator().manual_seed(0)
    verdict = _refusal(lambda batch: [batch[0] * torch.rand(4, generator=own)])
    assert "Generator" in verdict.reason


def test_host_results_are_refused():
    assert "host value (0.5)" in _refusal(lambda batch: {"lr": 0.5}).reason


def test_writes_into_the_batch_are_refused():
    assert "its batch" in _refusal(lambda batch: [batch[0].mul_(2.0)]).reason
    assert "its batch" in _refusal(lambda batch: [batch[0][1:].t().mul_(2.0)]).reason


def test_writes_into_number_tensors_are_refused():
    assert "number" in _refusal(lambda batch: [torch.as_tensor(1.0).add_(batch[0].sum())]).reason


def test_errors_while_tracing_are_refusals_and_gradients_come_back():
    step = steps.keras_step(keras.optimizers.Adam())
    gradients = [p.grad for p in step.parameters]

    run = step.run

    def broken(batch):
        run(batch)
        raise KeyError("nothing here")

    step.run = broken
    with pytest.raises(Refused, match="KeyError"):
        steps.record(step)
    assert all(p.grad is g for p, g in zip(step.parameters, gradients, strict=True))


def test_library_code_is_blamed_when_no_user_line_is_involved():
    step = steps.keras_step(keras.optimizers.Nadam())
    with pytest.raises(Refused) as caught:
        steps.record(step)
    assert "test_refused" not in caught.value.where


@pytest.mark.parametrize(
    "layer", [keras.layers.Dropout(0.3, seed=1), keras.layers.GaussianNoise(1)]
)
def test_seeded_random_layers_are_refused(layer):
    with pytest.raises(Refused):
        steps.record(steps.keras_step(keras.optimizers.Adam(), layer))


def test_keras_accumulation_is_refused_without_a_known_branch():
    with pytest.raises(Refused, match="__bool__"):
        steps.record(steps.keras_step(keras.optimizers.Adam(gradient_accumulation_steps=2)))


def test_foreach_adam_of_torch_is_refused():
    with pytest.raises(Refused):
        steps.record(steps.torch_step(lambda p: torch.optim.Adam(p, lr=1e-3, foreach=True)))
