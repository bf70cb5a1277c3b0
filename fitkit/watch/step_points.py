"""Points of curves, from what training batches have logged; it is read from the device at once."""

from collections.abc import Iterator, Sequence
from itertools import compress, groupby, pairwise
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fitkit.loop.packed import Packed

__all__ = ["Batch", "Points", "num_complete", "points_of"]

Batch = tuple[Packed, int, bool, int, float, Sequence[Tensor | float]]
"""What a batch has logged; its samples; whether it completes an update; position; seconds since
1970; learning rates that are not packed, of shape ()."""

_Column = Sequence[Tensor] | Sequence[float]
_Block = tuple[slice, tuple[str, ...], _Column]
"""Rows of a table, the names of its columns, and what stands there: of each row a tensor of shape
(names,), or a number."""

_Table = NDArray[np.float64]


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
    values: _Table


def num_complete(batches: Sequence[Batch]) -> int:
    """Return how many batches there are up to the last one that completes an update."""
    num = len(batches)
    while num and not batches[num - 1][2]:
        num -= 1
    return num


def points_of(batches: Sequence[Batch], rates: Sequence[str], device: torch.device) -> list[Points]:
    """Return a point for each update; the batches of one are their mean, weighted by samples.

    Args:
        batches: Of complete updates.
        rates: Names of the learning rates in a batch.
        device: Where the tensors are.

    Syncs: once, if there are batches.
    """
    if not batches:
        return []
    packed, samples, ends, xs, walls_s, numbers = zip(*batches, strict=True)
    blocks = [*_packed_blocks(packed), *_rate_blocks(rates, numbers, device)]
    names, values, weights = _table(blocks, samples)
    if not all(ends):
        values, weights = _means(values, weights, ends)
        xs, walls_s = [*compress(xs, ends)], [*compress(walls_s, ends)]
    return [
        Points(tuple([names[at] for at in here]), xs[rows], walls_s[rows], values[rows, here])
        for rows, here in _runs(weights > 0)
    ]


def _packed_blocks(packed: Sequence[Packed]) -> Iterator[_Block]:
    """Yield what was packed under the same names, and each of what was logged beside it."""
    begin = 0
    for (names, beside), group in groupby(packed, _names_of):
        those = [*group]
        rows = slice(begin, begin := begin + len(those))
        yield rows, names, [each.copies for each in those]
        for name in beside:
            yield rows, (name,), [each.beside[name] for each in those]


def _names_of(packed: Packed) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return packed.names, (*packed.beside,)


def _rate_blocks(
    names: Sequence[str], rates: Sequence[Sequence[Tensor | float]], device: torch.device
) -> Iterator[_Block]:
    """Yield the learning rates by name, as tensors if one of them is a tensor."""
    options: Any = {"dtype": torch.float32, "device": device}
    for name, column in zip(names, zip(*rates, strict=True), strict=True):
        if any(isinstance(rate, Tensor) for rate in column):
            column = [torch.as_tensor(rate, **options).reshape(1) for rate in column]
        yield slice(None), (name,), cast("_Column", column)


def _table(blocks: Sequence[_Block], samples: Sequence[int]) -> tuple[list[str], _Table, _Table]:
    """Return all names; the values of each batch by name, and how much they count: 0 if absent."""
    every = dict.fromkeys(name for _, names, _ in blocks for name in names)
    places = {name: place for place, name in enumerate(every)}
    values, weights = np.zeros((2, len(samples), len(places)))
    tensors = [each for *_, column in blocks for each in column if isinstance(each, Tensor)]
    read: Any = torch.cat(tensors).cpu().numpy()  # sync: once per flush
    counts = np.array(samples)[:, None]
    for rows, names, column in blocks:
        numbers: Any = column
        if isinstance(column[0], Tensor):
            numbers, read = np.split(read, [len(column) * len(names)])
        columns = [places[name] for name in names]
        values[rows, columns] = np.reshape(numbers, (len(column), len(names)))
        weights[rows, columns] = counts[rows]
    return [*places], values, weights


def _means(values: _Table, weights: _Table, ends: Sequence[bool]) -> tuple[_Table, _Table]:
    """Return the weighted means of what stands up to each end, and their weights."""
    starts = np.flatnonzero([True, *ends[:-1]])
    sums, totals = np.add.reduceat(values * weights, starts), np.add.reduceat(weights, starts)
    return np.divide(sums, totals, out=sums, where=totals > 0), totals


def _runs(present: NDArray[np.bool_]) -> Iterator[tuple[slice, list[int]]]:
    """Yield the runs of rows in which the same columns are present, and which ones."""
    changes = np.flatnonzero((present[1:] != present[:-1]).any(1)) + 1
    for begin, end in pairwise([0, *changes.tolist(), len(present)]):  # sync: none, of numpy
        columns: list[int] = np.flatnonzero(present[begin]).tolist()  # sync: none, of numpy
        if columns:
            yield slice(begin, end), columns
