"""The guide's loop with torch's loss and optimizer; compiled as PyTorch's tutorials do."""

from typing import Any

import torch

from benchmarks.suite.task import Task


def train(task: Task, *, compiled: dict[str, Any] | None = None, fused: bool = False) -> None:
    model, optimizer, loss_fn = task.module, task.torch_adam(fused=fused or None), task.torch_loss()
    train_loader, val_loader, device = task.loader(), task.val_loader(), task.device
    metrics, val_metrics = task.torch_metrics(), task.torch_metrics()
    forward = model if compiled is None else torch.compile(model, **compiled)
    for epoch in range(task.epochs):
        model.train()
        for step, (inputs, targets) in enumerate(train_loader, epoch * task.steps):
            inputs = inputs.to(device, non_blocking=True)
            targets = targets.to(device, non_blocking=True)
            logits = forward(inputs)
            loss = loss_fn(logits, targets)
            model.zero_grad()
            loss.backward()
            optimizer.step()
            for metric in metrics:
                metric.update(logits.detach(), targets)
            if step % 100 == 0:
                print(f"batch {step}: loss {loss.detach().cpu().numpy():.4f}")
        for metric in metrics:
            print(f"accuracy {float(metric.compute()):.4f}")
            metric.reset()
        if val_loader is not None:
            model.eval()
            validate(forward, val_loader, loss_fn, val_metrics, device)
        task.tick()


@torch.no_grad()
def validate(model: Any, loader: Any, loss_fn: Any, metrics: list[Any], device: str) -> None:
    total = torch.zeros((), device=device)
    for inputs, targets in loader:
        inputs, targets = inputs.to(device), targets.to(device)
        logits = model(inputs)
        total += loss_fn(logits, targets)
        for metric in metrics:
            metric.update(logits, targets)
    print(f"val loss {float(total) / len(loader):.4f}")
    for metric in metrics:
        print(f"val accuracy {float(metric.compute()):.4f}")
        metric.reset()
