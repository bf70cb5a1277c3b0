"""Accelerate: one's own loop; `prepare` places things, `backward` is the accelerator's."""

import torch
from accelerate import Accelerator

from benchmarks.suite.contestants.gan_losses import GanLosses
from benchmarks.suite.task import Task


def train(task: Task) -> None:
    accelerator = Accelerator(cpu=task.device == "cpu")
    if task.case.kind == "gan":
        train_gan(task, accelerator)
        return
    loss_fn = task.torch_loss()
    model, optimizer, loader = accelerator.prepare(task.module, task.torch_adam(), task.loader())
    val_loader = accelerator.prepare(task.val_loader()) if task.case.validates else None
    metrics, val_metrics = task.torch_metrics(), task.torch_metrics()
    for _ in range(task.epochs):
        model.train()
        total = torch.zeros((), device=accelerator.device)
        for inputs, targets in loader:
            optimizer.zero_grad()
            logits = model(inputs)
            loss = loss_fn(logits, targets)
            accelerator.backward(loss)
            optimizer.step()
            total += loss.detach()
            for metric in metrics:
                metric.update(logits.detach(), targets)
        report(accelerator, "train", total / len(loader), metrics)
        if val_loader is not None:
            model.eval()
            total = torch.zeros((), device=accelerator.device)
            with torch.no_grad():
                for inputs, targets in val_loader:
                    logits = model(inputs)
                    total += loss_fn(logits, targets)
                    for metric in val_metrics:
                        metric.update(*accelerator.gather_for_metrics((logits, targets)))
            report(accelerator, "val", total / len(val_loader), val_metrics)
        task.tick()


def report(accelerator: Accelerator, name: str, loss: torch.Tensor, metrics: list) -> None:
    accelerator.print(f"{name} loss {float(loss):.4f}")
    for metric in metrics:
        accelerator.print(f"{name} accuracy {float(metric.compute()):.4f}")
        metric.reset()


def train_gan(task: Task, accelerator: Accelerator) -> None:
    losses = GanLosses(task.model)
    d_optimizer, g_optimizer, loader = accelerator.prepare(*losses.optimizers(), task.loader())
    for _ in range(task.epochs):
        for real, _ in loader:
            for optimizer, loss_of in (
                (d_optimizer, losses.discriminator_loss),
                (g_optimizer, losses.generator_loss),
            ):
                task.model.zero_grad()
                accelerator.backward(loss_of(real))
                optimizer.step()
        task.tick()
