"""skorch: a NeuralNet as scikit-learn users have it, on arrays."""

from typing import Any

import skorch
import torch
from skorch.callbacks import Callback, EpochScoring
from skorch.dataset import Dataset
from skorch.helper import predefined_split

from benchmarks.suite.task import LEARNING_RATE, Task


class EpochEnd(Callback):
    """Rings after every epoch and its validation."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Ring."""
        self.task.tick()


def train(task: Task) -> None:
    x, y = task.x.numpy(), task.y.numpy()
    callbacks: list[Any] = [
        EpochScoring("accuracy", on_train=True, name=f"train_accuracy{index}")
        for index in range(task.case.num_metrics)
    ]
    split = None
    if task.case.validates:
        split = predefined_split(Dataset(task.x_val.numpy(), task.y_val.numpy()))
    kind = skorch.NeuralNetClassifier if y.ndim == 1 else skorch.NeuralNet
    net = kind(
        task.module,
        criterion=task.torch_loss(),
        optimizer=torch.optim.Adam,
        lr=LEARNING_RATE,
        max_epochs=task.epochs,
        batch_size=task.batch,
        train_split=split,
        callbacks=[*callbacks, ("epoch_end", EpochEnd(task))],
        device=task.device,
        verbose=0,
    )
    net.fit(x, y)
