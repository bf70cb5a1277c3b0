"""The layers of a model, as a list with names and depths."""

from collections.abc import Iterator
from typing import NamedTuple

from torch import nn

from fitkit.interop import children_of

__all__ = ["NamedLayer", "leaf_layers", "named_layers"]


class NamedLayer(NamedTuple):
    """A part of a model.

    Attributes:
        name: The names that lead to it, with dots; "" for the model itself.
        depth: 0 for the model itself.
        module: A module or a Keras layer.
        is_leaf: Whether it has no parts of its own.
    """

    name: str
    depth: int
    module: nn.Module
    is_leaf: bool


def named_layers(model: nn.Module) -> list[NamedLayer]:
    """Return the model and all its parts, each once, those of a part behind it."""
    return list(_walk(model, "", 0, set()))


def leaf_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return the parts that have no parts, by name; a model without any is its own."""
    return {layer.name or "model": layer.module for layer in named_layers(model) if layer.is_leaf}


def _walk(module: nn.Module, name: str, depth: int, seen: set[int]) -> Iterator[NamedLayer]:
    seen.add(id(module))
    children = [
        (part, child)
        for part, child in children_of(module)
        if id(child) not in seen and type(child).__name__ != "InputLayer"  # it is never called
    ]
    yield NamedLayer(name, depth, module, not children)
    for part, child in children:
        if id(child) not in seen:
            yield from _walk(child, f"{name}.{part}" if name else part, depth + 1, seen)
