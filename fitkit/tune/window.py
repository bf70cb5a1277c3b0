"""What a window of micro-batches adds up: gradients, how much they count, and the loss."""

from collections.abc import Hashable, Mapping, Sequence
from typing import final

import torch
from torch import Tensor

from fitkit.tune.tensor_lists import add_, copy_, div_, mul_

__all__ = ["Window"]


@final
class Window:
    """The sums of one window, in tensors that stay where they are from window to window.

    Attributes:
        uneven: Whether weights were seen that get a gradient in some micro-batches only.
    """

    def __init__(self) -> None:
        self._sums: dict[int, Tensor] = {}  # by the place of the parameter
        self._filled = frozenset[int]()  # the parameters that have got a gradient in this window
        self._known: dict[Hashable, frozenset[int]] = {}  # those that get one, by what is trainable
        self._divisor: Tensor | None = None
        self._counted = False  # whether the divisor is what was counted on the device
        self._loss: list[Tensor] = []  # summed, the samples it is of, what was told of it
        self.uneven = False

    def add(
        self,
        gradients: Sequence[Tensor | None],
        weight: float | Tensor,
        *,
        opens: bool,
        trainable: Hashable,
    ) -> None:
        """Add the gradients of a micro-batch, each times `weight`. Syncs: never.

        Args:
            gradients: One per parameter, shaped like it; those that are there may be written into.
            weight: How much the micro-batch counts.
            opens: Whether it is the first one: what was added before is dropped.
            trainable: What is trainable now; as long as it is, the same weights get gradients.
        """
        got = {place: g for place, g in enumerate(gradients) if g is not None}
        self.uneven |= self._known.setdefault(trainable, frozenset(got)) != got.keys()
        for place, gradient in got.items():
            if place not in self._sums:
                self._sums[place] = torch.zeros_like(gradient)
        self._counted = isinstance(weight, Tensor)
        if isinstance(weight, Tensor):
            mul_(list(got.values()), weight)
        if opens:
            self._filled = frozenset[int]()
        self._add(got, factor=1.0 if isinstance(weight, Tensor) else weight)
        divisor = self._divisor_for(got)
        if opens:
            divisor.zero_()
        divisor.add_(weight)

    def recall(self, trainable: Hashable) -> None:
        """Say again which weights have a gradient: a replay of `add` has not."""
        if not self.uneven:
            self._filled = self._known.get(trainable, self._filled)

    def _add(self, got: Mapping[int, Tensor], *, factor: float) -> None:
        first = [place for place in got if place not in self._filled]
        copy_([self._sums[place] for place in first], [got[place] for place in first])
        if factor != 1.0:
            mul_([self._sums[place] for place in first], factor)
        rest = [place for place in got if place in self._filled]
        add_([self._sums[p] for p in rest], [got[p] for p in rest], factor=factor)
        self._filled |= got.keys()

    def _divisor_for(self, got: Mapping[int, Tensor]) -> Tensor:
        if self._divisor is None:
            first = next(iter(got.values()), torch.empty(()))
            wide = first.dtype if first.dtype is torch.float64 else torch.float32
            self._divisor = torch.zeros((), dtype=wide, device=first.device)
        return self._divisor

    def share_of(
        self, loss: Tensor, weight: float | Tensor, batch_size: int, *, opens: bool, divide: bool
    ) -> Tensor:
        """Return the part of the window's loss that a micro-batch adds, shape (), after `add`.

        The mean of these parts, weighted by batch sizes, is the loss of the whole window, at any
        time: each is what the loss so far has changed by.

        Args:
            loss: Of the micro-batch, shape (), detached.
            weight: As given to `add`.
            batch_size: Of the micro-batch.
            opens: As given to `add`.
            divide: As given to `close`.
        """
        if not self._loss:
            wide = torch.float32 if loss.device.type == "mps" else torch.float64
            self._loss = [torch.zeros((), dtype=wide, device=loss.device) for _ in range(3)]
        total, samples, told = self._loss
        if opens:
            for tensor in self._loss:
                tensor.zero_()
        part = loss * weight
        if isinstance(weight, Tensor):
            part = torch.where(weight == 0, 0.0, part)  # the mean of nothing is no number
        total.add_(part)
        samples.add_(batch_size)
        so_far = (total / self._nonzero_divisor() if divide else total) * samples
        share = (so_far - told) / batch_size
        told.copy_(so_far)
        return share.to(loss.dtype)

    def _nonzero_divisor(self) -> Tensor:
        assert self._divisor is not None  # noqa: S101  # `add` has made it
        if not self._counted:
            return self._divisor
        return torch.where(self._divisor == 0, 1.0, self._divisor)  # then the sums are zeros

    def close(self, parameters: Sequence[Tensor], *, divide: bool) -> None:
        """Make the sums the gradients of the parameters; None where there was no gradient.

        Args:
            parameters: In the order of the gradients that were added.
            divide: Whether to divide by the sum of the weights.
        """
        if divide and self._filled:
            div_([self._sums[place] for place in self._filled], self._nonzero_divisor())
        for place, parameter in enumerate(parameters):
            parameter.grad = self._sums[place] if place in self._filled else None
