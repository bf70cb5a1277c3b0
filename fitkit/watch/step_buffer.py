"""Scalars of many steps, kept on the device and read at once."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Place", "Points", "StepBuffer"]

_SMALL = 1024  # bytes
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


class StepBuffer:
    """Rows of scalars of the device and the host, until they are read and written together.

    What a step has computed anew is kept as it is: nothing writes to its memory again, neither in
    an eager nor in a recorded step. Any operation on it would take longer than all the rest here.
    A tensor that somebody changes in place, or a view of a larger one, is copied; one that is
    changed for the first time after it was logged becomes NaN. The batches of one update become
    their mean, weighted by samples.

    Args:
        device: Where means are computed, and all is put together to be read.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._rows: list[tuple[Place, _Values]] = []
        self._held: tuple[_Values, int, Place | None] | None = None
        self._is_own: dict[str, bool] = {}  # by name: whether nothing else is in its memory
        self._firsts: dict[str, Tensor] = {}  # the first tensors of names that are new
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
            else:
                scalars: Mapping[str, Any] = values
                for name, value in scalars.items():
                    if not self._is_own.get(name) or value._version:
                        values = self._copied(values)
                        break
            if place is not None and values:
                self._rows.append((place, values))
        return len(self._rows)

    def take(self) -> list[Points]:
        """Return all rows and forget them. Syncs: once, if there are any of the device."""
        rows, self._rows = self._rows, []
        merged = [{**values, **rates} for (_, _, rates), values in rows]
        groups = [(names, list(group)) for names, group in groupby(merged, tuple[str, ...])]
        columns = [c for _, group in groups for c in zip(*[m.values() for m in group], strict=True)]
        numbers = iter(self._read(columns))
        found: list[Points] = []
        start = 0
        for names, group in groups:
            end = start + len(group)
            xs, walls_s, _ = zip(*[place for place, _ in rows[start:end]], strict=True)
            values = np.stack([next(numbers) for _ in names], 1)
            found.append(Points(names, xs, walls_s, values))
            start = end
        return found

    def _read(self, columns: Sequence[Sequence[Tensor | float]]) -> list[NDArray[np.float64]]:
        """Return columns of scalars as arrays of numbers."""
        of_device = [any(isinstance(scalar, Tensor) for scalar in column) for column in columns]
        scalars = [s for c, is_it in zip(columns, of_device, strict=True) if is_it for s in c]
        if not scalars:
            return [np.array(column, np.float64) for column in columns]
        tensors = [s if isinstance(s, Tensor) else torch.tensor(s) for s in scalars]
        if len({tensor.device for tensor in tensors}) > 1:
            tensors = [tensor.to(self._device) for tensor in tensors]
        stacked: Any = torch.stack(tensors).float()
        numbers = np.array(stacked.tolist())  # sync: once per flush
        changed = [not t.is_inference() and t._version > 0 for t in tensors]  # pyright: ignore[reportPrivateUsage]
        numbers[changed] = np.nan
        ends = np.cumsum([len(c) for c, is_it in zip(columns, of_device, strict=True) if is_it])
        parts = iter(np.split(numbers, ends[:-1]))
        return [
            next(parts) if is_it else np.array(column, np.float64)
            for column, is_it in zip(columns, of_device, strict=True)
        ]

    def _copied(self, values: _Values) -> _Values:
        """Return copies; learn of new names whether what they log need not be copied."""
        found: dict[str, Tensor | float] = {}
        for name, value in values.items():
            found[name] = value
            if isinstance(value, Tensor):
                found[name] = value + 0  # a clone of an inference tensor would tell of a change
                if name not in self._is_own:
                    self._learn(name, value)
        return found

    def _learn(self, name: str, value: Tensor) -> None:
        """Compare the first two tensors of a name, both alive: do they have memory of their own?"""
        first = self._firsts.pop(name, None)
        if first is None:
            self._firsts[name] = value
        else:
            is_small = value.untyped_storage().nbytes() <= _SMALL
            is_new = value.data_ptr() != first.data_ptr()
            self._is_own[name] = is_small and is_new and not value.is_inference()

    def _with_parts(self, values: _Values, num_samples: int) -> _Values:
        """Add a batch to those of the same update, and return their means."""
        for name, value in values.items():
            total, num = self._parts.get(name, (0.0, 0))
            if isinstance(value, Tensor):
                value = value.to(self._device, torch.float32)
            self._parts[name] = total + value * num_samples, num + num_samples
        return {name: total / num for name, (total, num) in self._parts.items()}
