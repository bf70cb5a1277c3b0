"""Hand-written steps that the recorder's tests trace: a model, a loss, an optimizer, metrics."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import torch
from torch import Tensor

from fitkit.record import Constants, GradBuffers, Gradients, Program, simplify, trace

BATCH = 16


@dataclass
class Step:
    """One training step with all the state it changes."""

    run: Callable[[Sequence[Tensor]], dict[str, Tensor]]
    parameters: list[Tensor]
    state: Callable[[], list[Tensor]]

    def snapshot(self) -> list[Tensor]:
        return [t.detach().clone() for t in self.state()]

    def restore(self, snapshot: list[Tensor]) -> None:
        with torch.no_grad():
            for tensor, value in zip(self.state(), snapshot, strict=True):
                tensor.copy_(value)


def batches(num: int, *, classes: int = 10, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    result = []
    for _ in range(num):
        x = torch.randn(BATCH, 20, generator=generator)
        y = torch.randint(0, classes, (BATCH,), generator=generator)
        result.append((x, torch.nn.functional.one_hot(y, classes).float()))
    return result


def keras_step(optimizer: Any, *layers: Any) -> Step:
    keras.utils.set_random_seed(0)
    first = keras.layers.Dense(32, activation="relu")
    model = keras.Sequential([keras.Input((20,)), first, *layers, keras.layers.Dense(10)])
    loss_fn = keras.losses.CategoricalCrossentropy(from_logits=True)
    metrics = [keras.metrics.Mean(), keras.metrics.CategoricalAccuracy()]

    def run(batch: Sequence[Tensor]) -> dict[str, Tensor]:
        x, y = batch
        outputs = model(x, training=True)
        loss = loss_fn(y, outputs)
        model.zero_grad()
        loss.backward()
        weights = model.trainable_weights
        with torch.no_grad():
            optimizer.apply([w.value.grad for w in weights], weights)
            metrics[0].update_state(loss.detach(), sample_weight=x.shape[0])
            metrics[1].update_state(y, outputs.detach())
        return {"loss": loss.detach(), "outputs": outputs.detach()}

    run(batches(1)[0])  # builds the optimizer and the metrics

    def state() -> list[Tensor]:
        owners = (model, optimizer, *metrics)
        return [v.value for owner in owners for v in owner.variables]

    return Step(run, list(model.parameters()), state)


def torch_step(optimizer_of: Callable[[Any], torch.optim.Optimizer]) -> Step:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(20, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
    optimizer = optimizer_of(model.parameters())

    def run(batch: Sequence[Tensor]) -> dict[str, Tensor]:
        x, y = batch
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return {"loss": loss.detach()}

    run(batches(1)[0])

    def state() -> list[Tensor]:
        slots = [s for p in model.parameters() for s in optimizer.state[p].values()]
        return [*model.parameters(), *(s for s in slots if isinstance(s, Tensor))]

    return Step(run, list(model.parameters()), state)


def record(step: Step, *, keep: GradBuffers | None = None, branch: bool | None = None) -> Program:
    gradients = Gradients(step.parameters, buffers=keep)
    graph = trace(
        step.run, batches(1)[0], gradients=gradients, constants=Constants(), branch=branch
    )
    simplify(graph)
    return Program(graph, gradients=gradients)


def equal(left: list[Tensor], right: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def distance(left: list[Tensor], right: list[Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(left, right, strict=True))
