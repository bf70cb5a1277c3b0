"""Scalars of many steps, kept on the device and read at once."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["Row", "StepBuffer"]


class Row(NamedTuple):
    """The scalars of one step: float32 of the device, then numbers of the host."""

    x: int
    wall_s: float
    names: tuple[str, ...]
    values: tuple[float, ...]


class StepBuffer:
    """Rows of device scalars in float32, which is what TensorBoard stores."""

    def __init__(self) -> None:
        self._rows: list[tuple[int, float, tuple[str, ...], tuple[float, ...]]] = []
        self._tensors: list[Tensor] = []

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._rows)

    def add(
        self,
        x: int,
        wall_s: float,
        values: Mapping[str, Tensor | float],
        device: torch.device,
    ) -> None:
        """Copy the scalars of one step on the device. Syncs: never.

        Args:
            x: The position on the horizontal axis.
            wall_s: Seconds since 1970.
            values: Numbers of the host, and tensors of shape () of any real dtype. A copy, because
                a replayed step writes its results to the same memory again.
            device: Where the row is kept.
        """
        scalars: dict[str, Tensor] = {}
        numbers: dict[str, float] = {}
        for name, value in values.items():
            if isinstance(value, Tensor):
                scalars[name] = value.to(device, torch.float32)
            else:
                numbers[name] = value
        if len(scalars) == 1:
            self._tensors.extend([value.clone() for value in scalars.values()])
        elif scalars:
            self._tensors.append(torch.stack(list(scalars.values())))
        self._rows.append((x, wall_s, (*scalars, *numbers), tuple(numbers.values())))

    def drop_from(self, x: int) -> None:
        """Forget the rows at `x` and later: the run has gone back behind them."""
        kept = [row for row in self.take() if row.x < x]
        for row in kept:
            self._rows.append((row.x, row.wall_s, row.names, row.values))

    def take(self) -> list[Row]:
        """Return all rows and forget them. Syncs: once, if there are any of the device."""
        numbers: list[float] = []
        if self._tensors:
            same = len({tensor.shape for tensor in self._tensors}) == 1
            tensors = self._tensors if same else [part.reshape(-1) for part in self._tensors]
            joined: Any = (torch.stack if same else torch.cat)(tensors).flatten()
            numbers = joined.tolist()  # sync: once per flush
        rows, self._rows, self._tensors = self._rows, [], []
        found: list[Row] = []
        start = 0
        for x, wall_s, names, host in rows:
            end = start + len(names) - len(host)
            found.append(Row(x, wall_s, names, (*numbers[start:end], *host)))
            start = end
        return found
