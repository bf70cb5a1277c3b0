"""Ignite: `create_supervised_trainer`; two optimizers by a step function of one's own."""

from typing import Any

from ignite.engine import (
    Engine,
    Events,
    create_supervised_evaluator,
    create_supervised_trainer,
)
from ignite.metrics import Accuracy, Loss

from benchmarks.suite.contestants.gan_losses import GanLosses
from benchmarks.suite.task import Task


def train(task: Task) -> None:
    trainer = gan_trainer(task) if task.case.kind == "gan" else supervised_trainer(task)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda _: task.tick())
    trainer.run(task.loader(), max_epochs=task.epochs)


def supervised_trainer(task: Task) -> Engine:
    """The trainer; with validation, an evaluator runs after every epoch."""
    loss_fn, num_metrics, val_loader = task.torch_loss(), task.case.num_metrics, task.val_loader()
    options: dict[str, Any] = {}
    if num_metrics:
        options["output_transform"] = lambda x, y, y_pred, loss: (y_pred, y)
    trainer = create_supervised_trainer(
        task.module, task.torch_adam(), loss_fn, device=task.device, **options
    )
    for index in range(num_metrics):
        Accuracy(device=task.device).attach(trainer, f"accuracy{index}")
    if val_loader is not None:
        metrics = {
            "accuracy": Accuracy(device=task.device),
            "loss": Loss(loss_fn, device=task.device),
        }
        evaluator = create_supervised_evaluator(task.module, metrics=metrics, device=task.device)
        trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda _: evaluator.run(val_loader))
    return trainer


def gan_trainer(task: Task) -> Engine:
    losses = GanLosses(task.model)
    d_optimizer, g_optimizer = losses.optimizers()

    def step(engine: Engine, batch: Any) -> dict[str, float]:
        real = batch[0].to(task.device)
        d_loss = losses.discriminator_loss(real)
        task.model.zero_grad()
        d_loss.backward()
        d_optimizer.step()
        g_loss = losses.generator_loss(real)
        task.model.zero_grad()
        g_loss.backward()
        g_optimizer.step()
        return {"d_loss": d_loss.item(), "g_loss": g_loss.item()}

    return Engine(step)
