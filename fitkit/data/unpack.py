"""From a batch to inputs, targets and sample weights; and how a batch reads in a message."""

from collections.abc import Callable, Mapping, Sized
from typing import Any, cast

from torch import Tensor

from fitkit.data.structure import Structure, leaves
from fitkit.errors import DataError


def default_unpack(batch: object) -> tuple[Structure, Structure, Structure]:
    """Split a batch the way Keras does.

    Args:
        batch: a tensor `(batch, ...)`, or a tuple or list of one to three structures.

    Returns:
        inputs, targets and sample_weight; None for what the batch does not have.

    Raises:
        DataError: anything else, such as a dict or a tuple of four.
    """
    if isinstance(batch, (tuple, list)):
        items = cast("tuple[Any, ...] | list[Any]", batch)
        if len(items) == 2:
            return items[0], items[1], None
        if len(items) == 1:
            return items[0], None, None
        if len(items) == 3:
            return items[0], items[1], items[2]
    elif isinstance(batch, Tensor):
        return batch, None, None
    raise DataError(
        f"The batch is {_kind(batch)}, expected inputs, (inputs, targets) or "
        "(inputs, targets, weights)\n"
        f"  given: {describe(batch)}\n"
        "Say what is what: FitLoop(..., unpack=lambda batch: (inputs, targets, sample_weight)), "
        "with None for what is absent."
    )


def unpacked(unpack: Callable[[Any], Any], batch: object) -> tuple[Structure, Structure, Structure]:
    """Split a batch by a function of the user.

    Raises:
        DataError: the function does not fit the batch, or returns no three parts.
    """
    try:
        inputs, targets, sample_weight = unpack(batch)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            "unpack= failed on the batch, expected it to return (inputs, targets, weights)\n"
            f"  given: {describe(batch)}\n"
            f"  {type(error).__name__}: {error}\n"
            "Return three parts of this batch, with None for what is absent."
        ) from error
    return inputs, targets, sample_weight


def _kind(batch: Any) -> str:
    size = f" of {len(batch)} items" if isinstance(batch, Sized) else ""
    return f"a {type(batch).__name__}{size}"


def describe(structure: Structure) -> str:
    """Write a structure on one line, such as `(Tensor[32, 784] float32, Tensor[32] int64)`."""
    if isinstance(structure, Tensor):
        return f"Tensor{list(structure.shape)} {str(structure.dtype).removeprefix('torch.')}"
    if isinstance(structure, Mapping):
        pairs = cast("Mapping[Any, Any]", structure).items()
        return "{" + ", ".join(f"{key!r}: {describe(value)}" for key, value in pairs) + "}"
    if isinstance(structure, (list, tuple)):
        items = cast("list[Any] | tuple[Any, ...]", structure)
        inside = ", ".join(describe(item) for item in items)
        if isinstance(items, list):
            return f"[{inside}]"
        return f"({inside},)" if len(items) == 1 else f"({inside})"
    return "None" if structure is None else type(structure).__name__


def batch_size_of(structure: Structure) -> int:
    """Give the first dimension of the first tensor that has one; a host read, no sync.

    Raises:
        DataError: no tensor of the structure has a dimension.
    """
    for _, leaf in leaves(structure):
        if isinstance(leaf, Tensor) and leaf.dim() > 0:
            return leaf.shape[0]
    raise DataError(
        "The batch has no tensor with a batch dimension, expected (batch, ...)\n"
        f"  given: {describe(structure)}\n"
        "Let the loader yield batches, not single samples: give DataLoader a batch_size."
    )
