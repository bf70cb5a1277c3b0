"""Scalars of many steps, kept on the device and read at once."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["Place", "Row", "StepBuffer"]


_Values = Mapping[str, Tensor | float]


class Place(NamedTuple):
    """Where a row stands, when it was measured, and learning rates at that time."""

    x: int
    wall_s: float
    rates: _Values


class Row(NamedTuple):
    """The scalars of one step: float32 of the device, then numbers of the host."""

    x: int
    wall_s: float
    names: tuple[str, ...]
    values: tuple[float, ...]


class StepBuffer:
    """Rows of device scalars in float32, which is what TensorBoard stores.

    A batch is held until everybody has logged, then copied; the batches of one update become their
    mean, weighted by samples.
    """

    def __init__(self) -> None:
        self._rows: list[tuple[int, float, tuple[str, ...], tuple[float, ...]]] = []
        self._tensors: list[Tensor] = []
        self._held: tuple[_Values, int, Place | None] | None = None
        self._parts: dict[str, tuple[Any, int]] = {}  # by name: sum and number of samples

    @property
    def is_open(self) -> bool:
        """Whether there are batches of an update that was not completed."""
        return bool(self._parts)

    def hold(self, values: _Values, num_samples: int, place: Place | None) -> None:
        """Keep what a batch logs, without a copy.

        Args:
            values: See `add`; more may still be put there.
            num_samples: Of the batch.
            place: Of the update it completes; None if it completes none.
        """
        self._held = values, num_samples, place

    def settle(self, device: torch.device) -> None:
        """Copy what is held; before the memory it lies in is used again. Syncs: never."""
        if self._held is None:
            return
        (values, num_samples, place), self._held = self._held, None
        if place is None or self._parts:
            for name, value in values.items():
                total, num = self._parts.get(name, (0.0, 0))
                value = value.to(device, torch.float32) if isinstance(value, Tensor) else value
                self._parts[name] = total + value * num_samples, num + num_samples
            if place is None:
                return
            values = {name: total / num for name, (total, num) in self._parts.items()}
            self._parts = {}
        if values:
            self.add(place.x, place.wall_s, {**values, **place.rates}, device)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._rows)

    def add(
        self,
        x: int,
        wall_s: float,
        values: _Values,
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
