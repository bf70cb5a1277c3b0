"""Poutyne: its Model around the network, `fit_generator` on the loaders."""

from typing import Any

import poutyne

from benchmarks.suite.task import Task


class EpochEnd(poutyne.Callback):
    """Rings after every epoch and its validation."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task

    def on_epoch_end(self, epoch_number: int, logs: dict[str, Any]) -> None:
        """Ring."""
        self.task.tick()


def train(task: Task) -> None:
    model = poutyne.Model(
        task.module,
        task.torch_adam(),
        task.torch_loss(),
        batch_metrics=["accuracy"] * task.case.num_metrics,
        device=task.device,
    )
    model.fit_generator(
        task.loader(),
        task.val_loader(),
        epochs=task.epochs,
        progress_options={"coloring": False},
        verbose=False,
        callbacks=[EpochEnd(task)],
    )
