"""TorchTNT: an AutoUnit, trained by `train` or `fit`."""

from typing import Any

import torch
from torch import Tensor
from torchtnt.framework import AutoUnit, State, fit
from torchtnt.framework import train as tnt_train
from torchtnt.framework.callback import Callback

from benchmarks.suite.task import Task


class Unit(AutoUnit[Any]):
    """The model with its loss and optimizer."""

    def __init__(self, task: Task) -> None:
        super().__init__(module=task.module, device=torch.device(task.device))
        self.loss, self.make_adam = task.torch_loss(), task.torch_adam
        self.accuracies, self.val_accuracies = task.torch_metrics(), task.torch_metrics()

    def compute_loss(self, state: State, data: Any) -> tuple[Tensor, Any]:
        """One batch."""
        inputs, targets = data
        logits = self.module(inputs)
        return self.loss(logits, targets), logits

    def configure_optimizers_and_lr_scheduler(self, module: Any) -> tuple[Any, None]:
        """Adam, at a constant rate."""
        return self.make_adam(), None

    def on_train_step_end(self, state: State, data: Any, step: int, results: Any) -> None:
        """Update the accuracies."""
        for accuracy in self.accuracies:
            accuracy.update(results.outputs, data[1])

    def on_eval_step_end(
        self, state: State, data: Any, step: int, loss: Tensor, outputs: Any
    ) -> None:
        """Update the accuracies of the validation."""
        for accuracy in self.val_accuracies:
            accuracy.update(outputs, data[1])


class EpochEnd(Callback):
    """Reads the accuracies and rings, after every epoch and its validation."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def on_train_epoch_end(self, state: State, unit: Any) -> None:
        """Ring, if there is no validation."""
        self._read(unit.accuracies)
        if not self.task.case.validates:
            self.task.tick()

    def on_eval_epoch_end(self, state: State, unit: Any) -> None:
        """Ring."""
        self._read(unit.val_accuracies)
        self.task.tick()

    def _read(self, accuracies: list[Any]) -> None:
        for accuracy in accuracies:
            print(f"accuracy {float(accuracy.compute()):.4f}")
            accuracy.reset()


def train(task: Task) -> None:
    unit, val_loader, callbacks = Unit(task), task.val_loader(), [EpochEnd(task)]
    if val_loader is None:
        tnt_train(unit, task.loader(), max_epochs=task.epochs, callbacks=callbacks)
    else:
        fit(
            unit,
            train_dataloader=task.loader(),
            eval_dataloader=val_loader,
            max_epochs=task.epochs,
            evaluate_every_n_epochs=1,
            callbacks=callbacks,
        )
