"""Loaders that add sample weights to the batches of another loader."""

from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from fitkit.data.check import check_loader
from fitkit.data.gather import Gather
from fitkit.data.source import Loader, LoaderWrapper
from fitkit.data.structure import Structure, as_tensor, to_tensors
from fitkit.data.unpack import default_unpack, describe
from fitkit.errors import ConfigError, DataError, brief

__all__ = ["ClassWeights", "SampleWeights"]

_NUMBERS = (int, float, np.integer, np.floating)


class SampleWeights(LoaderWrapper):
    """Add sample weights, as third item, to the batches (inputs, targets) of any loader.

    Args:
        loader: a `TensorLoader`, `DataLoader` or whatever else a loop takes.
        weights: either a function of a batch, `f(inputs, targets)`, that gives a weight per sample
            `(batch,)`; or all weights, an array or tensor `(num_samples, ...)` in the order of the
            rows, for a `TensorLoader` or a plain `DataLoader` over a `TensorDataset`.

    Raises:
        TypeError: the loader is none, or the weights are neither a function nor numbers.
        DataError: while iterating: a batch is not (inputs, targets), the weights do not fit it, or
            the rows of a batch are not known.

    Example:
        ```python
        import torch
        from fitkit import SampleWeights, TensorLoader

        x, y = torch.randn(100, 8), torch.randint(3, (100,))
        loader = SampleWeights(TensorLoader(x, y), lambda x, y: 1.0 + (y == 2))
        x, y, weights = next(iter(loader))
        ```
    """

    def __init__(self, loader: Loader, weights: Callable[[Any, Any], Any] | Any) -> None:
        check_loader(loader, "the loader of SampleWeights")
        super().__init__(loader)
        self._function = cast("Callable[[Any, Any], Any]", weights) if callable(weights) else None
        self._weights = torch.empty(0) if self._function else as_tensor(weights)

    def adapt(self, item: Gather | Structure) -> Gather | Structure:
        """Add the weights to a batch, or to the arrays it will be gathered from."""
        if self._function is None:
            return self._from_array(item)
        batch = item.take() if isinstance(item, Gather) else to_tensors(item)
        inputs, targets = _without_weights(batch, "SampleWeights")
        weights = as_tensor(self._function(inputs, targets))
        _check_length(weights, targets if isinstance(targets, Tensor) else None)
        return inputs, targets, weights

    def _from_array(self, item: Gather | Structure) -> Gather:
        if not isinstance(item, Gather):
            raise DataError(
                f"SampleWeights got an array, but {type(self.loader).__name__} does not tell which "
                "rows are in a batch\n"
                "Give it a function of inputs and targets, or put the weights into the dataset."
            )
        inputs, targets = _without_weights(item.arrays, "SampleWeights")
        self._weights = self._weights.to(item.device)
        _check_length(self._weights, targets if isinstance(targets, Tensor) else None)
        return Gather((inputs, targets, self._weights), item.index)


class ClassWeights(LoaderWrapper):
    """Add a weight per class, as sample weights, to the batches (inputs, targets) of any loader.

    The equivalent of `class_weight` in Keras's `fit`, for a `DataLoader`, too.

    Args:
        loader: a `TensorLoader`, `DataLoader` or whatever else a loop takes. Its targets are class
            indices: integers `(batch,)` or `(batch, 1)`.
        weights: the weight of each class, by its index; a class that is not named has weight 1.

    Raises:
        TypeError: the loader is none.
        ConfigError: a class is no index, or a weight no number of at least 0.
        DataError: while iterating: a batch is not (inputs, targets), or the targets are no class
            indices: floats, one-hot, or several outputs.

    Example:
        ```python
        import torch
        from fitkit import ClassWeights, TensorLoader

        loader = TensorLoader(torch.randn(100, 8), torch.randint(3, (100,)))
        x, y, weights = next(iter(ClassWeights(loader, {0: 0.5, 2: 4.0})))
        ```
    """

    def __init__(self, loader: Loader, weights: Mapping[int, float]) -> None:
        check_loader(loader, "the loader of ClassWeights")
        super().__init__(loader)
        _check_classes(weights)
        # One entry more than classes: what is not named.
        self._table = torch.ones(max(weights, default=-1) + 2)
        for index, weight in weights.items():
            self._table[index] = as_tensor(weight)
        self._of: tuple[Any, Tensor] | None = None  # targets of all rows, and their weights

    def adapt(self, item: Gather | Structure) -> Gather | Structure:
        """Add the weights to a batch, or to the arrays it will be gathered from."""
        if isinstance(item, Gather):
            inputs, targets = _without_weights(item.arrays, "ClassWeights")
            if self._of is None or self._of[0] is not targets:
                self._of = targets, self._look_up(targets)
            return Gather((inputs, targets, self._of[1]), item.index)
        inputs, targets = _without_weights(to_tensors(item), "ClassWeights")
        return inputs, targets, self._look_up(targets)

    def _look_up(self, targets: Any) -> Tensor:
        _check_targets(targets)
        self._table = self._table.to(targets.device)
        index = targets.reshape(len(targets)).long()
        rest = len(self._table) - 1
        return self._table[torch.where((index < 0) | (index > rest), rest, index)]


def _without_weights(batch: Structure, name: str) -> tuple[Any, Any]:
    inputs, targets, weights = default_unpack(batch)
    if targets is None or weights is not None:
        raise DataError(
            f"{name} got {describe(batch)}, expected (inputs, targets)\n"
            "Take away the weights the batches already have, or multiply both into one."
        )
    return inputs, targets


def _check_length(weights: Tensor, targets: Tensor | None) -> None:
    length = weights.shape[0] if weights.dim() else None
    if length is None or (targets is not None and length != len(targets)):
        expected = "one per sample" if targets is None else f"{len(targets)}, one per sample"
        raise DataError(
            f"SampleWeights got weights of shape {tuple(weights.shape)}, expected {expected}\n"
            "Give one number per sample, for example torch.where(targets == 1, 2.0, 1.0)."
        )


def _check_classes(weights: Mapping[Any, Any]) -> None:
    for index, weight in weights.items():
        if not (_at_least_0(index, (int, np.integer)) and _at_least_0(weight, _NUMBERS)):
            raise ConfigError(
                f"ClassWeights got {brief(index)}: {brief(weight)}, expected a class index and its "
                "weight\n"
                "Give indices from 0 and weights of at least 0: {0: 1.0, 1: 5.0}."
            )


def _at_least_0(value: Any, kinds: tuple[type, ...]) -> bool:
    return isinstance(value, kinds) and value >= 0


def _check_targets(targets: Any) -> None:
    if not isinstance(targets, Tensor):
        what, advice = describe(targets), "Use SampleWeights, which takes a function of the targets"
    elif targets.is_floating_point() or targets.is_complex():
        what, advice = describe(targets), "Convert them, targets.long(), if they are whole numbers"
    elif targets.dim() != 1 and targets.numel() != len(targets):
        what = f"{describe(targets)}, which is one-hot or has several per sample,"
        advice = "Use indices, targets.argmax(-1), with a sparse loss; or SampleWeights"
    else:
        return
    raise DataError(f"ClassWeights got targets {what} expected class indices (batch,)\n{advice}.")
