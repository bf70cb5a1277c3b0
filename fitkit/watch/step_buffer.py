"""Scalars of many steps, kept on the device and read at once."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Place", "Points", "StepBuffer"]

_torch: Any = cast(Any, torch)  # copying several scalars in one call has no public name
_Values = Mapping[str, Tensor | float]
_Memory = tuple[Tensor, Sequence[Tensor]]  # float32 (n,), and its n elements


class Place(NamedTuple):
    """Where a row stands, when it was measured, and learning rates at that time."""

    x: int
    wall_s: float
    rates: _Values


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


class _Copy(NamedTuple):
    """Scalars as they were at some time: first those of the device, then numbers of the host."""

    names: tuple[str, ...]
    memory: _Memory | None
    numbers: tuple[float, ...]


class StepBuffer:
    """Rows of device scalars in float32, which is what TensorBoard stores.

    They are copied, because a replayed step writes its results to the same memory again. Memory is
    used again when it was read. The batches of one update become their mean, weighted by samples.

    Args:
        device: Where the rows are kept.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._rows: list[tuple[Place, _Copy]] = []
        self._free: dict[int, list[_Memory]] = {}  # by the number of elements
        self._held: tuple[_Values, int, Place | None] | None = None
        self._copy = _Copy((), None, ())  # of what is held, as far as it was there
        self._copied_ids: list[int] = []
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
        if place is not None:
            self._copied_ids = [*map(id, values.values())]
            self._copy = self._copied({**values, **place.rates})

    def settle(self) -> None:
        """Take what is held for complete; before the next batch begins. Syncs: never."""
        if self._held is None:
            return
        (values, num_samples, place), self._held = self._held, None
        is_part = place is None or bool(self._parts)
        if is_part:
            values = self._with_parts(values, num_samples)
        if place is None or not values:
            return
        self._parts = {}
        if is_part or [*map(id, values.values())] != self._copied_ids:
            self._copy = self._copied({**values, **_scalars(self._copy, place.rates)})
        self._rows.append((place, self._copy))

    def take(self) -> list[Points]:
        """Return all rows and forget them. Syncs: once, if there are any of the device."""
        rows, self._rows = self._rows, []
        memories = [copy.memory for _, copy in rows if copy.memory]
        numbers: list[float] = []
        if memories:
            joined: Any = torch.cat([tensor for tensor, _ in memories])
            numbers = joined.tolist()  # sync: once per flush
        self._free = {}
        for memory in memories:
            self._free.setdefault(len(memory[1]), []).append(memory)
        found: list[Points] = []
        start = 0
        for (names, num_host), group in groupby(
            rows, lambda row: (row[1].names, len(row[1].numbers))
        ):
            places, copies = zip(*group, strict=True)
            xs, walls_s, _ = zip(*places, strict=True)
            end = start + (len(names) - num_host) * len(xs)
            values = np.array(numbers[start:end]).reshape(len(xs), -1)
            if num_host:
                values = np.hstack([values, np.array([copy.numbers for copy in copies])])
            found.append(Points(names, xs, walls_s, values))
            start = end
        return found

    def _with_parts(self, values: _Values, num_samples: int) -> _Values:
        """Add a batch to those of the same update, and return their means."""
        for name, value in values.items():
            total, num = self._parts.get(name, (0.0, 0))
            if isinstance(value, Tensor):
                value = value.to(self._device, torch.float32)
            self._parts[name] = total + value * num_samples, num + num_samples
        return {name: total / num for name, (total, num) in self._parts.items()}

    def _copied(self, values: _Values) -> _Copy:
        scalars = [value for value in values.values() if isinstance(value, Tensor)]
        names, numbers = tuple(values), ()
        if len(scalars) < len(names):
            host = {n: v for n, v in values.items() if not isinstance(v, Tensor)}
            names = (*[name for name in names if name not in host], *host)
            numbers = tuple(host.values())
        if not scalars:
            return _Copy(names, None, numbers)
        free = self._free.get(len(scalars))
        if free:
            memory = free.pop()
        else:
            tensor = torch.empty(len(scalars), dtype=torch.float32, device=self._device)
            memory = tensor, tensor.unbind()
        _torch._foreach_copy_(memory[1], scalars)
        return _Copy(names, memory, numbers)


def _scalars(copy: _Copy, wanted: _Values) -> _Values:
    """Return some of the scalars that were copied."""
    values = (*(copy.memory[1] if copy.memory else ()), *copy.numbers)
    found = dict(zip(copy.names, values, strict=True))
    return {name: found[name] for name in wanted}
