"""Nested batches: walk them, and turn their leaves into tensors."""

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from copy import copy
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor

from fitkit.errors import DataError

Structure: TypeAlias = Any
"""A tensor, or a dict, list, tuple or namedtuple of structures; None stands for an absent part."""

_NUMERIC_KINDS = "biufc"  # numpy's bool, signed, unsigned, float, complex


def map_leaves(function: Callable[[Any], Any], structure: Structure) -> Structure:
    """Apply `function` to every leaf that is not None, keeping the containers.

    Dicts keep their class and the order of their keys, namedtuples their class.
    """
    if isinstance(structure, Tensor):
        return function(structure)
    if isinstance(structure, (list, tuple)):
        items = cast("list[Any] | tuple[Any, ...]", structure)
        mapped = [map_leaves(function, item) for item in items]
        if isinstance(items, list):
            return mapped
        return type(items)(*mapped) if hasattr(items, "_fields") else tuple(mapped)
    if isinstance(structure, Mapping):
        return _map_mapping(function, cast("Mapping[Any, Any]", structure))
    return None if structure is None else function(structure)


def _map_mapping(function: Callable[[Any], Any], mapping: Mapping[Any, Any]) -> Structure:
    mapped = {key: map_leaves(function, value) for key, value in mapping.items()}
    if type(mapping) is dict or not isinstance(mapping, MutableMapping):
        return mapped
    result = copy(mapping)  # OrderedDict, UserDict and the like keep what else they carry
    result.update(mapped)
    return result


def leaves(structure: Structure, path: str = "batch") -> Iterator[tuple[str, Any]]:
    """Yield (path, leaf) in order, such as ("batch[0]['image']", tensor); None is left out."""
    if isinstance(structure, (list, tuple)):
        items = cast("list[Any] | tuple[Any, ...]", structure)
        for index, item in enumerate(items):
            yield from leaves(item, f"{path}[{index}]")
    elif isinstance(structure, Mapping):
        for key, value in cast("Mapping[Any, Any]", structure).items():
            yield from leaves(value, f"{path}[{key!r}]")
    elif structure is not None:
        yield path, structure


def as_tensor(leaf: object) -> Tensor:
    """Give a number or an array as a tensor, sharing the memory of an array where that is safe.

    Raises:
        TypeError: the leaf is not a number or an array of numbers.
    """
    if isinstance(leaf, Tensor):
        return leaf
    if isinstance(leaf, np.ndarray):
        return _from_numpy(cast("np.ndarray[Any, np.dtype[Any]]", leaf))
    if isinstance(leaf, (bool, int, float, complex)):
        return torch.tensor(leaf)
    if isinstance(leaf, np.generic):
        return _from_numpy(np.asarray(cast("Any", leaf)))
    raise TypeError(f"{type(leaf).__name__} is not a number")


def _from_numpy(array: np.ndarray[Any, np.dtype[Any]]) -> Tensor:
    if array.dtype.kind not in _NUMERIC_KINDS:
        raise TypeError(f"an array of dtype {array.dtype} does not hold numbers")
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if not array.flags.writeable or any(stride < 0 for stride in array.strides):
        array = array.copy()  # torch cannot hold read-only memory or negative strides
    return torch.from_numpy(array)  # pyright: ignore[reportUnknownMemberType]  # a bare ndarray


def to_tensors(structure: Structure, path: str = "batch") -> Structure:
    """Give the same structure with every leaf a tensor, on the device where the leaf lies.

    Raises:
        DataError: a leaf is not a number or an array of numbers; names its path and its type.
    """
    try:
        return map_leaves(as_tensor, structure)
    except TypeError:
        raise _bad_leaf(structure, path) from None


def _bad_leaf(structure: Structure, path: str) -> DataError:
    for where, leaf in leaves(structure, path):
        kind = cast("type[Any]", type(leaf))
        try:
            as_tensor(leaf)
        except TypeError as reason:
            return DataError(
                f"{where} is a {kind.__module__}.{kind.__qualname__}, expected a tensor, array "
                f"or number\n  ({reason})\n"
                "Give numbers: encode or leave out this item in the dataset or in its collate_fn."
            )
    raise AssertionError("a leaf failed once and then did not")
