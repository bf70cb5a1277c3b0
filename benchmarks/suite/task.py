"""What a contestant is given: a built model, the data, and a bell to ring after every epoch."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.suite.cases import Case

LEARNING_RATE = 1e-3
SEED = 1


class TokenLoss(nn.Module):
    """Cross-entropy of logits (..., classes) and class numbers of the shape before it."""

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Average over all tokens."""
        return nn.functional.cross_entropy(outputs.flatten(0, -2), targets.flatten())


class TellsTraining(nn.Module):
    """A Keras model for loops that only know `train()` and `eval()`.

    A Keras model goes by the argument `training=`: without it, batch normalization would use its
    moving averages while training, and never update them.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Tensor:
        """Call the model in the mode of this module."""
        return self.model(inputs, training=self.training)


class Task:
    """A case on a device, made from the seed: the same weights and batches for everybody.

    Attributes:
        model: Built, on the device.
        module: The same for loops that know nothing of Keras.
        x, y: Training data on the host, `steps * batch` samples.
        x_val, y_val: Data of the validation, on the host.
        steps: Steps per epoch.
        epochs: How many to train.
        warmup: Epochs before those that are measured.
        rounds: Epochs that may be measured.
        windows: How many of these fitkit's own `Benchmark` is to measure, too.
        after: Epochs after those, which probes watch.
        model_s: What it took to make the model.
        tick: To be called at the end of every epoch, after its validation.
        pass_begins, pass_ends: May be called around the training pass of an epoch.
        told: What a contestant tells about itself beside its times.
        scratch: A folder for whatever it writes.
    """

    def __init__(
        self,
        case: Case,
        *,
        device: str = "cpu",
        warmup: int = 1,
        rounds: int = 1,
        windows: int = 1,
        after: int = 0,
        tick: Callable[[], None] = lambda: None,
        pass_begins: Callable[[], None] = lambda: None,
        pass_ends: Callable[[], None] = lambda: None,
        scratch: Path = Path("."),
    ) -> None:
        self.case, self.device, self.tick, self.scratch = case, device, tick, scratch
        self.batch = case.batch
        self.warmup, self.rounds, self.windows, self.after = warmup, rounds, windows, after
        self.epochs = warmup + rounds + after
        self.pass_begins, self.pass_ends = pass_begins, pass_ends
        self.told: dict[str, Any] = {}
        self.steps = case.steps if device == "cpu" else case.steps * case.longer_on_cuda
        num_train = case.batch * self.steps
        num_val = case.batch * max(1, self.steps // 4)
        x, y = case.data(num_train + num_val)
        self.x, self.y = x[:num_train], y[:num_train]
        self.x_val, self.y_val = x[num_train:], y[num_train:]
        begin = time.perf_counter()
        keras.utils.set_random_seed(SEED)
        self.model: Any = case.model().to(device)
        self.module: nn.Module = TellsTraining(self.model) if case.kind == "keras" else self.model
        self.model_s = time.perf_counter() - begin

    def loader(self) -> DataLoader[Any]:
        """The training data, batch by batch, in order."""
        return self._loader(self.x, self.y)

    def val_loader(self) -> DataLoader[Any] | None:
        """The validation data, if there is to be a validation."""
        return self._loader(self.x_val, self.y_val) if self.case.validates else None

    def _loader(self, x: Tensor, y: Tensor) -> DataLoader[Any]:
        return DataLoader(TensorDataset(x, y), self.batch, pin_memory=self.device != "cpu")

    def torch_loss(self) -> nn.Module:
        """Cross-entropy of torch."""
        return TokenLoss() if self.y.ndim > 1 else nn.CrossEntropyLoss()

    def torch_adam(self, **options: Any) -> torch.optim.Optimizer:
        """Adam of torch over all weights."""
        return torch.optim.Adam(self.model.parameters(), lr=LEARNING_RATE, **options)

    def keras_loss(self) -> Any:
        """Cross-entropy of Keras."""
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def keras_adam(self) -> Any:
        """Adam of Keras."""
        return keras.optimizers.Adam(LEARNING_RATE)

    def keras_metrics(self) -> list[Any]:
        """Accuracies of Keras."""
        return [
            keras.metrics.SparseCategoricalAccuracy(name=f"accuracy{index or ''}")
            for index in range(self.case.num_metrics)
        ]

    def torch_metrics(self) -> list[Any]:
        """Accuracies of torchmetrics, on the device."""
        from torchmetrics.classification import MulticlassAccuracy

        classes = 10
        return [
            MulticlassAccuracy(classes, average="micro").to(self.device)
            for _ in range(self.case.num_metrics)
        ]
