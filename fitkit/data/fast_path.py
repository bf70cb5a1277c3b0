"""Read a DataLoader over a TensorDataset without touching single samples."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, cast

import numpy as np
import torch
from torch.utils import data
from torch.utils.data import DataLoader, TensorDataset

from fitkit.data.gather import Gather, ids_of
from fitkit.data.structure import Structure

_collate: Callable[[list[Any]], Structure] = cast("Any", data).default_collate

_WHOLE: tuple[set[type], ...] = ({int}, {np.int64})


def rows_of(loader: object) -> TensorDataset | None:
    """Give the dataset of a loader for which one gather equals collating single samples.

    None for all others: subclasses, workers, own collate functions, samplers without batches.
    """
    if type(loader) is not DataLoader:
        return None
    plain = cast("Any", loader)  # torch leaves the types of some attributes open
    if (
        type(plain.dataset) is TensorDataset
        and plain.collate_fn is _collate
        and plain.batch_sampler is not None
        and plain.num_workers == 0
        and plain.timeout == 0
        and _are_plain(plain.dataset.tensors)
    ):
        return plain.dataset
    return None


def _are_plain(tensors: Sequence[torch.Tensor]) -> bool:
    """Whether the tensors are ordinary ones on one device."""
    return all(
        type(tensor) is torch.Tensor
        and tensor.layout is torch.strided
        and tensor.device == tensors[0].device
        for tensor in tensors
    )


def gathers(
    loader: Any, rows: TensorDataset, skip: int = 0
) -> Iterator[Gather | list[torch.Tensor]]:
    """Yield what the loader would, one gather per batch, drawing the same random numbers.

    The indices of the first `skip` batches are drawn and thrown away.

    What torch draws when a pass begins, and from which generator, stays torch's own affair: a
    second DataLoader begins the pass, and only its batches are read without it. Indices that a
    gather cannot take (negative, out of range, not whole numbers) go the ordinary way.
    """
    begun = _Begun(loader.batch_sampler)
    iter(DataLoader(rows, batch_sampler=begun, generator=loader.generator))
    next(islice(begun.batches, skip, skip), None)
    arrays = list(rows.tensors)  # default_collate turns a tuple into a list
    ids = ids_of(arrays)
    return (_select(rows, arrays, ids, indices) for indices in begun.batches)


class _Begun:
    """Keeps the iterator that a DataLoader takes of its batch sampler."""

    batches: Iterator[list[Any]]

    def __init__(self, batch_sampler: Iterable[list[Any]]) -> None:
        self.batch_sampler = batch_sampler

    def __iter__(self) -> Iterator[list[Any]]:
        self.batches = iter(self.batch_sampler)
        return self.batches


def _select(
    rows: TensorDataset,
    arrays: list[torch.Tensor],
    ids: tuple[tuple[str, int], ...],
    indices: list[Any],
) -> Gather | list[torch.Tensor]:
    if type(indices) is not list:
        indices = list(indices)  # a batch sampler may yield iterators, too
    whole = set(map(type, indices)) in _WHOLE
    if not whole or min(indices) < 0 or max(indices) >= len(rows):
        return _collate([rows[item] for item in indices])
    index = np.array(indices, dtype=np.int64)  # torch reads a list item by item
    host = torch.from_numpy(index)  # pyright: ignore[reportUnknownMemberType]  # a bare ndarray
    return Gather(arrays, host.to(arrays[0].device), ids)
