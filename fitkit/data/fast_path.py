"""Read a DataLoader over a TensorDataset without touching single samples."""

from collections.abc import Iterator, Sequence
from typing import Any, TypeGuard, cast

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset, default_collate

from fitkit.data.gather import Gather
from fitkit.data.structure import Structure


def is_plain(loader: object) -> "TypeGuard[DataLoader[Any]]":
    """Whether one gather gives what the loader would collate from single samples.

    Subclasses, workers, own collate functions and samplers without batches are left alone.
    """
    if type(loader) is not DataLoader:
        return False
    loader = cast("DataLoader[Any]", loader)
    return (
        type(loader.dataset) is TensorDataset
        and loader.collate_fn is default_collate
        and loader.batch_sampler is not None
        and loader.num_workers == 0
        and loader.timeout == 0
        and _are_plain(loader.dataset.tensors)
    )


def _are_plain(tensors: Sequence[torch.Tensor]) -> bool:
    """Whether the tensors are ordinary ones on one device."""
    return all(
        type(tensor) is torch.Tensor
        and tensor.layout is torch.strided
        and tensor.device == tensors[0].device
        for tensor in tensors
    )


def gathers(loader: "DataLoader[Any]") -> Iterator[Gather | list[torch.Tensor]]:
    """Yield what the loader would, one gather per batch, drawing the same random numbers.

    A second DataLoader asks the batch sampler, so that when and from which generator torch draws
    stays torch's own affair; only the dataset behind it gives rows by the batch. Indices a gather
    cannot take (negative, out of range, not whole numbers) go the ordinary way.
    """
    rows = _Rows(cast("TensorDataset", loader.dataset))
    return iter(
        DataLoader(
            rows,
            batch_sampler=loader.batch_sampler,
            collate_fn=_as_it_is,
            generator=loader.generator,
        )
    )


class _Rows(Dataset[Any]):
    def __init__(self, dataset: TensorDataset) -> None:
        self.dataset = dataset
        self.arrays = list(dataset.tensors)  # default_collate turns a tuple into a list

    def __getitems__(self, indices: Sequence[Any]) -> Structure:
        index = np.array(indices)  # 3 times as fast as torch.tensor on a list of ints
        usable = index.dtype.kind == "i" and index.ndim == 1 and len(index) > 0
        if not usable or index.min() < 0 or index.max() >= len(self.dataset):
            return default_collate([self.dataset[item] for item in indices])
        host = torch.from_numpy(index.astype(np.int64, copy=False))  # pyright: ignore[reportUnknownMemberType]
        return Gather(self.arrays, host.to(self.arrays[0].device))


def _as_it_is(batch: Structure) -> Structure:
    return batch
