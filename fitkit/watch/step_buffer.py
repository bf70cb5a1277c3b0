"""Scalars of many steps, kept on the device and read at once."""

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

__all__ = ["Row", "StepBuffer"]


class Row(NamedTuple):
    """The scalars of one step."""

    x: int
    wall_s: float
    values: dict[str, float]


class StepBuffer:
    """Rows of device scalars in float32, which is what TensorBoard stores."""

    def __init__(self) -> None:
        self._rows: list[tuple[int, float, tuple[str, ...]]] = []
        self._tensors: list[Tensor] = []

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._rows)

    def add(
        self, x: int, wall_s: float, values: Mapping[str, Tensor], device: torch.device
    ) -> None:
        """Copy the scalars of one step on the device. Syncs: never.

        Args:
            x: The position on the horizontal axis.
            wall_s: Seconds since 1970.
            values: Shape () each, any real dtype. A copy, because a replayed step writes its
                results to the same memory again.
            device: Where the row is kept.
        """
        scalars = [value.to(device, torch.float32) for value in values.values()]
        self._tensors.append(torch.stack(scalars))
        self._rows.append((x, wall_s, tuple(values)))

    def take(self) -> list[Row]:
        """Return all rows and forget them."""
        if not self._rows:
            return []
        numbers: list[float] = cast(Any, torch.cat(self._tensors)).tolist()  # sync: once per flush
        rows, self._rows, self._tensors = self._rows, [], []
        source = iter(numbers)
        return [Row(x, wall_s, {name: next(source) for name in names}) for x, wall_s, names in rows]
