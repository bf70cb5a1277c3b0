"""Scalars of many steps, kept on the device and read at once."""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain, groupby
from operator import itemgetter
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fitkit.loop.packed import Packed
from fitkit.loop.state import State
from fitkit.watch.rates import Rate

__all__ = ["Points", "StepBuffer"]

_Values = Mapping[str, Tensor | float]

_Numbers = Sequence[Tensor | float]
_Names = tuple[str, ...]

_Held = tuple[_Values, Packed | None, int, bool, int, float, _Numbers]
"""A batch: what was logged, tensors of shape () of any real dtype and numbers of the host; the copy
that the step has made; its samples; whether it completes an update; position, time, rates."""

_Row = tuple[int, float, _Names, _Names, Tensor | None, _Numbers]
"""An update: position, time, names of what is on the device and of what is not, a copy of what is
on the device, the others and the learning rates."""


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

    Scalars are copied before the next batch: anybody may go on to write to a tensor that was
    logged. The step has done it, but for what was logged after it, or not in a whole update. The
    batches of one update become their mean, weighted by samples.

    Args:
        device: Where means are computed, and all is put together to be read.
        place: Tells where an update stands on the horizontal axis.
        clock: Seconds since 1970.
        rates: What reads the learning rates, by name; nobody writes to what they return.
    """

    # Side by side: the step before leaves little of the host's data in the processor's cache.
    __slots__ = ("_clock", "_device", "_held", "_names", "_parts", "_place", "_rates", "_rows")

    def __init__(
        self,
        device: torch.device,
        *,
        place: Callable[[State], int],
        clock: Callable[[], float],
        rates: Mapping[str, Rate],
    ) -> None:
        self._device = device
        self._place = place
        self._clock = clock
        self._names = (*rates,)
        self._rates = (*rates.values(),)
        self._rows: list[_Row] = []
        self._held: _Held | None = None
        self._parts: dict[str, tuple[Any, int]] = {}  # by name: sum and number of samples

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._rows)

    def hold(self, state: State) -> None:
        """Keep what a training batch logs; it may go on to log. Syncs: never."""
        # Loops here and below, no built-in functions: after a step the code of those must be
        # fetched from memory, which takes longer than the interpreter that has just run.
        rates: list[Tensor | float] = []
        for rate in self._rates:
            rates.append(rate())
        self._held = (
            state.step_values,
            state.packed,
            state.batch_size,
            state.closes_update,
            self._place(state),
            self._clock(),
            rates,
        )

    def complete(self, state: State) -> None:
        """Settle; complete an update that the end of the loader has cut short. Syncs: never."""
        self.settle()
        if self._parts:
            rates = [rate() for rate in self._rates]
            self._held = {}, None, 0, True, self._place(state), self._clock(), rates
            self.settle()

    def settle(self) -> int:
        """Take what is held for complete, before the next batch begins. Syncs: never.

        Returns:
            The number of rows.
        """
        rows, held = self._rows, self._held
        if held is None:
            return len(rows)
        values, packed, num_samples, completes, x, wall_s, rates = held
        self._held = None
        if packed is not None and completes and not self._parts:
            given, copies = packed
            if len(values) == len(given):
                for name in given:
                    if values.get(name) is not given[name]:
                        break
                else:  # nothing was logged later
                    rows.append((x, wall_s, (*given,), (), copies, rates))
                    return len(rows)
            values = _with_copies(values, packed)
        if self._parts or not completes:
            values = self._with_parts(values, num_samples)
        if completes:
            self._parts = {}
            if values:
                rows.append(self._row(x, wall_s, values, rates))
        return len(rows)

    def _row(self, x: int, wall_s: float, values: _Values, rates: _Numbers) -> _Row:
        tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
        numbers = {name: value for name, value in values.items() if name not in tensors}
        copies = [tensor.to(self._device, torch.float32) for tensor in tensors.values()]
        copied = torch.stack(copies) if copies else None
        return x, wall_s, (*tensors,), (*numbers,), copied, (*numbers.values(), *rates)

    def take(self) -> list[Points]:
        """Return all rows and forget them.

        Syncs: once per run of rows with the same names, if there is something of the device.
        """
        rows, self._rows = self._rows, []
        found: list[Points] = []
        for (of_device, of_host), group in groupby(rows, itemgetter(2, 3)):
            xs, walls_s, _, _, copies, numbers = zip(*group, strict=True)
            joined = torch.cat(copies).view(len(xs), -1) if of_device else None
            table = self._table(joined, numbers)
            found.append(Points((*of_device, *of_host, *self._names), xs, walls_s, table))
        return found

    def _table(self, copies: Tensor | None, numbers: Sequence[_Numbers]) -> NDArray[np.float64]:
        """Return the values of rows of the same names, shape (rows, names)."""
        kinds = {*map(type, chain.from_iterable(numbers))}
        if any(issubclass(kind, Tensor) for kind in kinds):
            columns = [self._stacked(column)[:, None] for column in zip(*numbers, strict=True)]
            copies = torch.cat([*([] if copies is None else [copies]), *columns], 1)
            numbers = [()] * len(numbers)
        width = 0 if copies is None else copies.shape[1]
        table = np.empty((len(numbers), width + len(numbers[0])))
        table[:, width:] = numbers
        if copies is not None:
            table[:, :width] = cast(Any, copies).tolist()  # sync: once per flush
        return table

    def _stacked(self, column: Sequence[Tensor | float]) -> Tensor:
        """Return a column as a tensor: most of it is one and the same object."""
        moved = {id(value): torch.as_tensor(value, device=self._device) for value in column}
        return torch.stack([moved[id(value)] for value in column])

    def _with_parts(self, values: _Values, num_samples: int) -> _Values:
        """Add a batch to those of the same update, and return their means."""
        for name, value in values.items():
            total, num = self._parts.get(name, (0.0, 0))
            if isinstance(value, Tensor):
                value = value.to(self._device, torch.float32)
            self._parts[name] = total + value * num_samples, num + num_samples
        return {name: total / num for name, (total, num) in self._parts.items()}


def _with_copies(values: _Values, packed: Packed) -> _Values:
    """Return the values with the copies of the step in the place of what was logged in it."""
    of_step = zip(packed.values.items(), packed.copies.unbind(), strict=True)
    return {**values, **{name: copy for (name, at), copy in of_step if values.get(name) is at}}
