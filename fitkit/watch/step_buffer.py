"""Scalars of many steps, kept on the device and read at once."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Place", "Points", "StepBuffer"]

_Values = Mapping[str, Tensor | float]

Place = tuple[int, float, _Values]
"""Position on the horizontal axis, seconds since 1970, learning rates at that time."""


class Points(NamedTuple):
    """Points of several curves.

    Attributes:
        names: What the curves are called.
        xs: The positions of the points.
        walls_s: When they were measured, seconds since 1970.
        values: Shape (points, curves).
    """

    names: tuple[str, ...]
    xs: Sequence[int]
    walls_s: Sequence[float]
    values: NDArray[np.float64]


class _Row(NamedTuple):
    """The scalars of an update.

    Attributes:
        x: Position on the horizontal axis.
        wall_s: Seconds since 1970.
        names: Of the scalars, in order.
        is_tensor: For each, whether it is one.
        tensor: A copy of those, in order; None if there are none.
        numbers: The others, in order.
    """

    x: int
    wall_s: float
    names: tuple[str, ...]
    is_tensor: tuple[bool, ...]
    tensor: Tensor | None
    numbers: Sequence[float]


class StepBuffer:
    """Rows of scalars of the device and the host, until they are read and written together.

    The scalars of an update are copied by one operation: anybody may go on to write to a tensor
    that was logged. The batches of one update become their mean, weighted by samples.

    Args:
        device: Where means are computed, and all is put together to be read.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._rows: list[_Row] = []
        self._held: tuple[_Values, int, Place | None] | None = None
        self._parts: dict[str, tuple[Any, int]] = {}  # by name: sum and number of samples

    @property
    def is_open(self) -> bool:
        """Whether there are batches of an update that was not completed."""
        return bool(self._parts)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._rows)

    def hold(self, values: _Values, num_samples: int, place: Place | None) -> None:
        """Keep what a batch logs. Syncs: never.

        Args:
            values: Tensors of shape () of any real dtype and numbers of the host; more may still
                be put there.
            num_samples: Of the batch.
            place: Of the update it completes; None if it completes none.
        """
        self._held = values, num_samples, place

    def settle(self) -> int:
        """Take what is held for complete, before the next batch begins. Syncs: never.

        Returns:
            The number of rows.
        """
        if self._held is not None:
            (values, num_samples, place), self._held = self._held, None
            if place is None or self._parts:
                values = self._with_parts(values, num_samples)
                if place is not None:
                    self._parts = {}
            if place is not None and values:
                self._rows.append(self._row(place, values))
        return len(self._rows)

    def _row(self, place: Place, values: _Values) -> _Row:
        x, wall_s, rates = place
        values = {**values, **rates}
        is_tensor = tuple([isinstance(value, Tensor) for value in values.values()])
        tensors = [value for value in values.values() if isinstance(value, Tensor)]
        numbers = [value for value in values.values() if not isinstance(value, Tensor)]
        if any(tensor.device != self._device for tensor in tensors):
            tensors = [tensor.to(self._device) for tensor in tensors]
        copied = torch.stack(tensors) if tensors else None
        return _Row(x, wall_s, tuple(values), is_tensor, copied, numbers)

    def take(self) -> list[Points]:
        """Return all rows and forget them.

        Syncs: once per run of rows with the same names, if there is something of the device.
        """
        rows, self._rows = self._rows, []
        found: list[Points] = []
        for (names, is_tensor), group in groupby(rows, lambda row: (row.names, row.is_tensor)):
            same = list(group)
            of_device = np.array(is_tensor)
            values = np.empty((len(same), len(names)))
            values[:, ~of_device] = [row.numbers for row in same]
            tensors = [row.tensor for row in same if row.tensor is not None]
            if tensors:
                stacked: Any = torch.stack(tensors)
                values[:, of_device] = stacked.tolist()  # sync: once per flush
            xs, walls_s = [row.x for row in same], [row.wall_s for row in same]
            found.append(Points(names, xs, walls_s, values))
        return found

    def _with_parts(self, values: _Values, num_samples: int) -> _Values:
        """Add a batch to those of the same update, and return their means."""
        for name, value in values.items():
            total, num = self._parts.get(name, (0.0, 0))
            if isinstance(value, Tensor):
                value = value.to(self._device, torch.float32)
            self._parts[name] = total + value * num_samples, num + num_samples
        return {name: total / num for name, (total, num) in self._parts.items()}
