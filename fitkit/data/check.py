"""Refuse what cannot be read, saying how to give it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fitkit.data.source import LoaderWrapper, length
from fitkit.data.tensor_loader import TensorLoader
from fitkit.errors import DataError

_ARRAYS = (Tensor, np.ndarray)
_ONE_SHOT = {"builtins", "itertools"}  # modules of iterators that never begin anew


def check_loader(loader: object, name: str) -> None:
    """Refuse a loader before anything is read from it; `name` is how the message calls it.

    Raises:
        TypeError: not something that yields batches: a torch Dataset, an array, a class, a str.
        DataError: it has a length, and the length is 0.
    """
    advice = _advice(loader)
    if advice is not None:
        what = f"the class {loader.__name__}" if isinstance(loader, type) else _article(loader)
        raise TypeError(f"{name} is {what}, expected an iterable of batches\n{advice}")
    if length(cast("Any", loader)) == 0:
        raise empty_error(loader, name)


def check_rereadable(loader: object, name: str, why: str) -> None:
    """Refuse what can only be read once where it is to be read again; `why` ends the message.

    An iterator of a user's own class may begin anew at `iter()`; those of Python never do.

    Raises:
        DataError: it is a generator or another iterator of Python's.
    """
    while isinstance(loader, LoaderWrapper):
        loader = loader.loader
    if isinstance(loader, Iterator) and type(cast("Any", loader)).__module__ in _ONE_SHOT:
        raise DataError(
            f"{name} is one-shot, {_article(cast('object', loader))} can be read once, but {why}\n"
            "Give something that can be read again, such as a DataLoader, TensorLoader or list."
        )


def _advice(loader: object) -> str | None:
    """Say what to do with a loader that cannot work, None if it can."""
    kind = type(loader).__name__
    if isinstance(loader, type):
        return f"Give an instance: {loader.__name__}(...)."
    if isinstance(loader, Dataset):
        return (
            f"Wrap it in a DataLoader: DataLoader({kind}(...), batch_size=32), or batch_size=None "
            "if it already yields batches."
        )
    if isinstance(loader, _ARRAYS) or _is_pair(loader):
        return "Wrap it in a TensorLoader: TensorLoader(x, y, batch_size=32)."
    if _holds_loaders(loader):
        return 'Give names to several: val_loader={"a": ..., "b": ...}; training reads one.'
    if isinstance(loader, (str, bytes, Mapping)) or not (
        hasattr(loader, "__iter__") or hasattr(loader, "__getitem__")
    ):
        return "Give a TensorLoader, DataLoader, PyDataset, tf.data.Dataset, generator or list."
    return None


def _is_pair(loader: object) -> bool:
    """Whether it is (x, y) as Keras takes it, not batches: a tuple of two or three arrays."""
    items = cast("tuple[object, ...]", loader) if isinstance(loader, tuple) else ()
    return len(items) in (2, 3) and all(isinstance(item, _ARRAYS) for item in items)


def _holds_loaders(loader: object) -> bool:
    """Whether it is a list of loaders, not of batches."""
    items = cast("Sequence[object]", loader) if isinstance(loader, (list, tuple)) else ()
    return bool(items) and isinstance(items[0], (DataLoader, LoaderWrapper, TensorLoader))


def empty_error(loader: object, name: str) -> DataError:
    """Build the error for a pass that found no batch, telling why as far as it shows."""
    if isinstance(loader, Iterator):
        return DataError(
            f"{name} has no batches left: {_article(cast('object', loader))} is one-shot, "
            "it can be read once\n"
            "Give something that can be read again, such as a DataLoader, TensorLoader or list; or "
            "run a single pass."
        )
    known = {
        "len": length(loader),
        "len(dataset)": _rows(loader),
        "batch_size": getattr(loader, "batch_size", None),
        "drop_last": getattr(loader, "drop_last", None),
    }
    found = ", ".join(f"{key}={value}" for key, value in known.items() if value is not None)
    return DataError(
        f"{name} gave no batches, expected at least one\n"
        f"  {type(loader).__name__}: {found or 'its length is not known'}\n"
        "Give it data; if drop_last leaves nothing, use a smaller batch_size or drop_last=False."
    )


def _rows(loader: object) -> int | None:
    rows = getattr(loader, "num_samples", None)
    return length(getattr(loader, "dataset", None)) if rows is None else rows


def _article(loader: object) -> str:
    kind = type(loader).__name__
    return f"{'an' if kind[0].lower() in 'aeiou' else 'a'} {kind}"
