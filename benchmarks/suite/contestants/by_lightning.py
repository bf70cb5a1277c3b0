"""Lightning: a LightningModule and a Trainer; two optimizers by its manual optimization.

Its logger is the one that it chooses by default. Two more of its defaults are off: checkpoints, as
one at the end of every epoch would weigh too much in epochs this short, and the progress bar, as
for everybody.
"""

from typing import Any

import lightning
from torch import Tensor, nn

from benchmarks.suite.contestants.gan_losses import GanLosses
from benchmarks.suite.task import Task


class Classifier(lightning.LightningModule):
    """The model with loss, accuracies and optimizer."""

    def __init__(self, task: Task, logs: bool) -> None:
        super().__init__()
        self.model, self.loss, self.logs, self.make_adam = (
            task.module, task.torch_loss(), logs, task.torch_adam,
        )  # fmt: skip
        self.accuracies = nn.ModuleList(task.torch_metrics())
        self.val_accuracies = nn.ModuleList(task.torch_metrics())

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """One batch."""
        return self._step(batch, "train", self.accuracies)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """One batch of validation."""
        self._step(batch, "val", self.val_accuracies)

    def _step(self, batch: Any, stage: str, accuracies: Any) -> Tensor:
        inputs, targets = batch
        logits = self.model(inputs)
        loss = self.loss(logits, targets)
        if self.logs:
            self.log(f"{stage}_loss", loss)
        for index, accuracy in enumerate(accuracies):
            accuracy.update(logits, targets)
            if self.logs:
                self.log(f"{stage}_accuracy{index}", accuracy, on_step=False, on_epoch=True)
        return loss

    def on_train_epoch_end(self) -> None:
        """Read the accuracies that nobody logs."""
        for accuracy in [] if self.logs else [*self.accuracies, *self.val_accuracies]:
            print(f"accuracy {float(accuracy.compute()):.4f}")
            accuracy.reset()

    def configure_optimizers(self) -> Any:
        """Adam."""
        return self.make_adam()


class Gan(lightning.LightningModule):
    """Both networks, optimized by hand."""

    def __init__(self, task: Task, logs: bool) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.losses, self.logs = GanLosses(task.model), logs

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """One step of each network."""
        d_optimizer, g_optimizer = self.optimizers()
        for optimizer, loss_of in (
            (d_optimizer, self.losses.discriminator_loss),
            (g_optimizer, self.losses.generator_loss),
        ):
            self.toggle_optimizer(optimizer)
            loss = loss_of(batch[0])
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            self.untoggle_optimizer(optimizer)
            if self.logs:
                self.log(loss_of.__name__, loss.detach())

    def configure_optimizers(self) -> Any:
        """One Adam per network."""
        return self.losses.optimizers()


class EpochEnd(lightning.Callback):
    """Rings after every epoch and its validation."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Ring."""
        self.task.tick()


class Nothing(lightning.Callback):
    """Does nothing twice a batch."""

    def on_train_batch_start(self, *arguments: Any) -> None:
        """Do nothing."""

    def on_train_batch_end(self, *arguments: Any) -> None:
        """Do nothing."""


def train(task: Task, *, barebones: bool = False) -> None:
    module = (Gan if task.case.kind == "gan" else Classifier)(task, logs=not barebones)
    off = {"enable_checkpointing": False, "enable_progress_bar": False}
    trainer = lightning.Trainer(
        max_epochs=task.epochs,
        accelerator="cpu" if task.device == "cpu" else "gpu",
        devices=1,
        default_root_dir=task.scratch,
        callbacks=[*[Nothing() for _ in range(task.case.num_callbacks)], EpochEnd(task)],
        **({"barebones": True} if barebones else off),
    )
    if not barebones:
        loggers = ", ".join(type(each).__name__ for each in trainer.loggers)
        task.told["note"] = f"logs to {loggers}; no checkpoints, no progress bar"
    trainer.fit(module, task.loader(), task.val_loader())
