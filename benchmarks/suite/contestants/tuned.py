"""What one can do by hand: data that lie on the device, read by slices, and fused Adam."""

from typing import Any

import torch
from torch import Tensor

from benchmarks.suite.task import Task


def train(task: Task, *, compiled: dict[str, Any] | None = None) -> None:
    """Train as `hand_torch` does, without a loader, a copy per batch or a line to print."""
    model, optimizer, loss_fn = task.module, task.torch_adam(fused=True), task.torch_loss()
    batches = resident(task, task.x, task.y)
    val_batches = resident(task, task.x_val, task.y_val) if task.case.validates else []
    metrics, val_metrics = task.torch_metrics(), task.torch_metrics()

    def forward(inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        logits = model(inputs)
        return logits, loss_fn(logits, targets)

    run = forward if compiled is None else torch.compile(forward, **compiled)
    for _ in range(task.epochs):
        model.train()
        total = torch.zeros((), device=task.device)
        for inputs, targets in batches:
            logits, loss = run(inputs, targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach()
            for metric in metrics:
                metric.update(logits.detach(), targets)
        report("train", total, metrics)
        if val_batches:
            model.eval()
            validate(run, val_batches, val_metrics)
        task.tick()


def resident(task: Task, x: Tensor, y: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The batches: views of the arrays, which lie on the device."""
    slices = [each.to(task.device).split(task.batch) for each in (x, y)]
    return list(zip(*slices, strict=True))


@torch.no_grad()
def validate(run: Any, batches: list[tuple[Tensor, Tensor]], metrics: list[Any]) -> None:
    total = torch.zeros((), device=batches[0][0].device)
    for inputs, targets in batches:
        logits, loss = run(inputs, targets)
        total += loss
        for metric in metrics:
            metric.update(logits, targets)
    report("val", total, metrics)


def report(name: str, total: Tensor, metrics: list[Any]) -> None:
    """Print the sum of the losses and the accuracies; the next epoch begins at zero."""
    print(f"{name} loss {float(total):.4f}, {[float(metric.compute()) for metric in metrics]}")
    for metric in metrics:
        metric.reset()
