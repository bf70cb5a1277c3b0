"""The guide's loop with Keras's loss, optimizer and metrics; its GAN, by its own train_step."""

from typing import Any

import torch

from benchmarks.suite.task import Task


def train(task: Task, *, compiled: dict[str, Any] | None = None) -> None:
    if task.case.kind == "gan":
        train_gan(task)
        return
    model, optimizer, loss_fn = task.model, task.keras_adam(), task.keras_loss()
    train_loader, val_loader, device = task.loader(), task.val_loader(), task.device
    metrics, val_metrics = task.keras_metrics(), task.keras_metrics()
    forward = model if compiled is None else torch.compile(model, **compiled)
    for epoch in range(task.epochs):
        for step, (inputs, targets) in enumerate(train_loader, epoch * task.steps):
            inputs, targets = inputs.to(device), targets.to(device)
            logits = forward(inputs, training=True)
            loss = loss_fn(targets, logits)
            model.zero_grad()
            trainable = list(model.trainable_weights)
            loss.backward()
            gradients = [v.value.grad for v in trainable]
            with torch.no_grad():
                optimizer.apply(gradients, trainable)
            for metric in metrics:
                metric.update_state(targets, logits)
            if step % 100 == 0:
                print(f"batch {step}: loss {loss.detach().cpu().numpy():.4f}")
        for metric in metrics:
            print(f"accuracy {float(metric.result()):.4f}")
            metric.reset_state()
        if val_loader is not None:
            validate(forward, val_loader, loss_fn, val_metrics, device)
        task.tick()


@torch.no_grad()
def validate(model: Any, loader: Any, loss_fn: Any, metrics: list[Any], device: str) -> None:
    total = torch.zeros((), device=device)
    for inputs, targets in loader:
        inputs, targets = inputs.to(device), targets.to(device)
        logits = model(inputs, training=False)
        total += loss_fn(targets, logits)
        for metric in metrics:
            metric.update_state(targets, logits)
    print(f"val loss {float(total) / len(loader):.4f}")
    for metric in metrics:
        print(f"val accuracy {float(metric.result()):.4f}")
        metric.reset_state()


def train_gan(task: Task) -> None:
    for _ in range(task.epochs):
        for real, _ in task.loader():
            task.model.train_step(real.to(task.device))
        task.tick()
