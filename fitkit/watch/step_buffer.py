"""Scalars of many steps, kept on the device and read at once."""

from collections.abc import Mapping, Sequence
from operator import is_
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Place", "Points", "StepBuffer"]

_torch: Any = cast(Any, torch)  # copying several scalars in one call has no public name
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


class _Block:
    """Consecutive rows of the same scalars: first those of the device, then numbers of the host."""

    def __init__(self, names: tuple[str, ...], num_host: int, size: int, device: Any) -> None:
        self.kind = names, num_host
        self.rows = torch.empty(size, len(names) - num_host, device=device, dtype=torch.float32)
        self.cells: list[Sequence[Tensor]] = []  # of each row; made once, as they are used again
        self.xs: list[int] = []
        self.walls_s: list[float] = []
        self.numbers: list[tuple[float, ...]] = []

    def points(self, numbers: list[float]) -> Points:
        """Return the rows with what was read of them, and forget them."""
        values = np.array(numbers).reshape(len(self.xs), -1)
        if self.kind[1]:
            values = np.hstack([values, np.array(self.numbers)])
        found = Points(self.kind[0], self.xs, self.walls_s, values)
        self.xs, self.walls_s, self.numbers = [], [], []
        return found


class StepBuffer:
    """Rows of device scalars in float32, which is what TensorBoard stores.

    They are copied, because a replayed step writes its results to the same memory again. The
    batches of one update become their mean, weighted by samples.

    Args:
        device: Where the rows are kept.
        size: How many lie together in memory; more may be kept.
    """

    def __init__(self, device: torch.device, size: int) -> None:
        self._device = device
        self._size = size
        self._blocks: list[_Block] = []  # in the order of their rows
        self._free: list[_Block] = []
        self._num_rows = 0
        self._held: tuple[_Values, int, Place | None] | None = None
        self._copied: list[Tensor | float] = []  # what the row of the held batch was made of
        self._parts: dict[str, tuple[Any, int]] = {}  # by name: sum and number of samples

    @property
    def is_open(self) -> bool:
        """Whether there are batches of an update that was not completed."""
        return bool(self._parts)

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._num_rows

    def hold(self, values: _Values, num_samples: int, place: Place | None) -> None:
        """Keep what a batch logs. Syncs: never.

        Args:
            values: Tensors of shape () of any real dtype and numbers of the host; more may still
                be put there.
            num_samples: Of the batch.
            place: Of the update it completes; None if it completes none.
        """
        self._copied = []
        if place is not None and self._parts:
            x, wall_s, rates = place
            copies = {n: r.clone() if isinstance(r, Tensor) else r for n, r in rates.items()}
            place = x, wall_s, copies
        elif place is not None and values:
            self._copied = [*values.values()]
            self._add(values, place)
        self._held = values, num_samples, place

    def settle(self) -> None:
        """Take what is held for complete; before the next batch begins. Syncs: never."""
        if self._held is None:
            return
        (values, num_samples, place), self._held = self._held, None
        if place is None or self._parts:
            values = self._with_parts(values, num_samples)
        elif len(values) == len(self._copied) and all(map(is_, values.values(), self._copied)):
            return  # as it was when it was copied
        if place is not None and values:
            self._parts = {}
            self._add(values, self._taken_back(place) if self._copied else place)

    def take(self) -> list[Points]:
        """Return all rows and forget them. Syncs: once, if there are any of the device."""
        blocks, self._blocks, self._num_rows = self._blocks, [], 0
        self._free = blocks
        parts: list[Any] = [block.rows[: len(block.xs)].flatten() for block in blocks]
        numbers: list[float] = []
        if any(map(len, parts)):
            joined: Any = torch.cat(parts)
            numbers = joined.tolist()  # sync: once per flush
        found: list[Points] = []
        for block, part in zip(blocks, parts, strict=True):
            found.append(block.points(numbers[: len(part)]))
            numbers = numbers[len(part) :]
        return found

    def _add(self, values: _Values, place: Place) -> None:
        x, wall_s, rates = place
        merged = {**values, **rates}
        names, scalars, numbers = tuple(merged), [*merged.values()], tuple[float, ...]()
        if {*map(type, scalars)} != {Tensor}:
            host = {n: v for n, v in merged.items() if not isinstance(v, Tensor)}
            scalars = [v for v in scalars if isinstance(v, Tensor)]
            names = (*[name for name in names if name not in host], *host)
            numbers = tuple(host.values())
        block = self._blocks[-1] if self._blocks else None
        kind = names, len(numbers)
        if block is None or block.kind != kind or len(block.xs) == self._size:
            block = self._begin(kind)
        row = len(block.xs)
        if row == len(block.cells):
            block.cells.append(block.rows[row].unbind())
        if scalars:
            _torch._foreach_copy_(block.cells[row], scalars)
        block.xs.append(x)
        block.walls_s.append(wall_s)
        block.numbers.append(numbers)
        self._num_rows += 1

    def _begin(self, kind: tuple[tuple[str, ...], int]) -> _Block:
        free = next((block for block in self._free if block.kind == kind), None)
        if free is None:
            free = _Block(*kind, self._size, self._device)
        else:
            self._free.remove(free)
        self._blocks.append(free)
        return free

    def _taken_back(self, place: Place) -> Place:
        """Take the latest row back; return its place with the learning rates of then."""
        x, wall_s, rates = place
        block = self._blocks[-1]
        cells = dict(zip(block.kind[0], block.cells[len(block.xs) - 1], strict=False))
        for column in (block.xs, block.walls_s, block.numbers):
            column.pop()
        if not block.xs:
            self._free.append(self._blocks.pop())
        self._num_rows -= 1
        return x, wall_s, {name: cells.get(name, rate) for name, rate in rates.items()}

    def _with_parts(self, values: _Values, num_samples: int) -> _Values:
        """Add a batch to those of the same update, and return their means."""
        for name, value in values.items():
            total, num = self._parts.get(name, (0.0, 0))
            if isinstance(value, Tensor):
                value = value.to(self._device, torch.float32)
            self._parts[name] = total + value * num_samples, num + num_samples
        return {name: total / num for name, (total, num) in self._parts.items()}
