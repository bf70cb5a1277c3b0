"""How each kind of loader is read: its length, its epoch, its batches."""

from collections.abc import Iterable, Iterator, Sized
from typing import Any, Protocol, cast, runtime_checkable

import torch

from fitkit.data.fast_path import gathers, rows_of
from fitkit.data.gather import Gather
from fitkit.data.structure import Structure
from fitkit.data.tensor_loader import TensorLoader
from fitkit.data.workers import begin

Loader = Iterable[Structure]
"""Anything that yields batches: TensorLoader, DataLoader, PyDataset, tf.data, generator, list."""


@runtime_checkable
class _PyDataset(Protocol):
    """What keras.utils.PyDataset has, known by its methods so that Keras is not imported."""

    def __getitem__(self, index: int) -> Structure: ...
    def on_epoch_begin(self) -> None: ...
    def on_epoch_end(self) -> None: ...


@runtime_checkable
class _NumpyIterable(Protocol):
    """What tf.data.Dataset has, known by its method so that TensorFlow is not imported."""

    def as_numpy_iterator(self) -> Iterator[Structure]: ...


class LoaderWrapper:
    """A loader that changes the batches of another one.

    Where the other gathers rows of resident arrays, a wrapper can change the arrays instead.

    Args:
        loader: anything that yields batches.
    """

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def adapt(self, item: Gather | Structure) -> Gather | Structure:
        """Give the changed batch."""
        return item

    def read(self) -> Iterator[Gather | Structure]:
        """Begin a pass: give its batches, still to be placed."""
        return map(self.adapt, open_source(self.loader))

    def __len__(self) -> int:
        """Number of batches in a pass; TypeError where the inner loader does not know it."""
        known = length(self.loader)
        if known is None:
            raise TypeError(f"{type(self.loader).__name__} has no length")
        return known

    def __iter__(self) -> Iterator[Structure]:
        """Yield the batches, where they lie."""
        for item in open_source(self):
            yield item.take() if isinstance(item, Gather) else item


def length(loader: object) -> int | None:
    """Give the number of batches in a pass, None where the loader does not know it."""
    try:
        if isinstance(loader, _PyDataset) and hasattr(loader, "num_batches"):
            return cast("Any", loader).num_batches
        return len(cast("Sized", loader)) if hasattr(loader, "__len__") else None
    except (TypeError, NotImplementedError):  # a DataLoader over an IterableDataset, endless data
        return None


def set_epoch(loader: Loader, epoch: int) -> None:
    """Tell the epoch to whatever part of the loader draws an order from it."""
    if isinstance(loader, LoaderWrapper):
        set_epoch(loader.loader, epoch)
        return
    batch_sampler = getattr(loader, "batch_sampler", None)
    parts = [
        loader,
        getattr(loader, "dataset", None),
        getattr(loader, "sampler", None),
        batch_sampler,
        getattr(batch_sampler, "sampler", None),
    ]
    for part in {id(part): part for part in parts}.values():
        if callable(told := getattr(part, "set_epoch", None)):
            told(epoch)


def is_pydataset(loader: object) -> bool:
    """Whether it is read by index between two hooks, as keras.utils.PyDataset is."""
    return isinstance(loader, _PyDataset)


def open_source(loader: Loader, skip: int = 0) -> Iterator[Gather | Structure]:
    """Begin a pass: exactly one `iter()` of the loader, whose batches are still to be placed.

    `skip` batches are left out at the beginning of a PyDataset, which is read by index.
    """
    if isinstance(loader, LoaderWrapper):
        return loader.read()
    if isinstance(loader, TensorLoader):
        return loader.gathers()
    if (rows := rows_of(loader)) is not None:
        return gathers(loader, rows)
    if isinstance(loader, _NumpyIterable):
        return loader.as_numpy_iterator()
    if isinstance(loader, _PyDataset):
        return _between_hooks(loader, skip)
    return begin(loader)


def move(loader: Loader, device: torch.device) -> None:
    """Let a loader of resident arrays move them to the device."""
    if isinstance(loader, LoaderWrapper):
        move(loader.loader, device)
    elif isinstance(loader, TensorLoader):
        loader.to(device)


def is_resident(loader: Loader, device: torch.device) -> bool:
    """Whether the batches are gathered from arrays that lie on the device."""
    if isinstance(loader, LoaderWrapper):
        return is_resident(loader.loader, device)
    if isinstance(loader, TensorLoader):
        return loader.device == device
    rows = rows_of(loader)
    return rows is not None and rows.tensors[0].device == device


def fetches_alone(loader: Loader) -> bool:
    """Whether a pass over rows of arrays runs code of fitkit's and torch's only."""
    if isinstance(loader, LoaderWrapper):
        return type(loader).__module__.startswith("fitkit.") and fetches_alone(loader.loader)
    if rows_of(loader) is None:
        return type(loader) is TensorLoader
    batch_sampler = cast("Any", loader).batch_sampler
    samplers = (batch_sampler, getattr(batch_sampler, "sampler", None))
    return all(type(each).__module__.startswith("torch.utils.data") for each in samplers)


def _between_hooks(loader: _PyDataset, skip: int) -> Iterator[Structure]:
    loader.on_epoch_begin()  # at once: who resumes puts back what it draws
    indices = range(skip, length(loader) or 0)

    def batches() -> Iterator[Structure]:
        if skip:
            yield from (loader[index] for index in indices)
        else:
            yield from cast("Iterable[Any]", loader)
        loader.on_epoch_end()

    return batches()
