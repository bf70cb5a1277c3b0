"""Where Python keeps values without names: containers, arrays of numbers, iterators."""

from collections import deque
from collections.abc import Iterable, Sized
from typing import Any, cast, final

import numpy as np

from fitkit.record.holder import Holder, Items, Source, Values

__all__ = ["ArrayHolder", "Container", "ContainerHolder", "IteratorHolder"]

Container = dict[Any, Any] | list[Any] | deque[Any] | set[Any]

_MAX_ITEMS = 4096
_VALUES = cast(Any, dict).values
_ITEMS = cast(Any, iter)


@final
class ContainerHolder(Holder):
    """The items of a list, dict, deque or set. Of a long one its length and first items are read.

    Args:
        container: The container.
        owner: Whose it is.
        counts: Whether a step may not change it.
    """

    def __init__(self, container: Container, owner: str, *, counts: bool = True) -> None:
        self.owner = owner
        self._container = container
        self._has_keys = isinstance(container, dict)
        self._counts = counts

    def read(self) -> Values:
        """Return the values a program depends on, as they are now."""
        held = self._container
        values = (*held.values(), *held) if isinstance(held, dict) else tuple(held)
        return values if len(values) <= _MAX_ITEMS else (len(values), *values[:_MAX_ITEMS])

    def sources(self) -> Iterable[Source]:
        """Return functions and what to call them with, to see fast whether `read` has changed."""
        held: Any = self._container
        if not held:
            return []  # its length tells
        if len(held) > _MAX_ITEMS // 2:
            return super().sources()
        return [(_ITEMS, held), *([(_VALUES, held)] if self._has_keys else [])]

    def sized(self) -> Sized | None:
        """Return what has another length when values have come or gone, if there is such."""
        return self._container

    def items(self) -> Items:
        """Return a copy of all values by name."""
        held = self._container
        return dict(held) if isinstance(held, dict) else dict(enumerate(held))

    def put(self, items: Items) -> None:
        """Put a copy back."""
        held: Any = self._container
        held.clear()
        if isinstance(held, dict | set):
            cast(Any, held).update(items if isinstance(held, dict) else items.values())
        else:
            held.extend(items.values())

    def counts(self, name: Any, old: Any, new: Any) -> bool:
        """Return whether a step may not make this change."""
        return self._counts

    def label(self, name: Any) -> str:
        """Return what a value is called in messages."""
        return f"{self.owner}[{name!r}]" if isinstance(self._container, dict) else self.owner


@final
class ArrayHolder(Holder):
    """The numbers in an array of numpy's, which a step may read one by one.

    Args:
        array: The array.
        owner: Whose it is.
    """

    def __init__(self, array: "np.ndarray[Any, Any]", owner: str) -> None:
        self.owner = owner
        self._array = array
        self._bytes = b""

    def read(self) -> Values:
        """Return the values a program depends on, as they are now: the same object if equal."""
        now = self._array.tobytes()
        if now != self._bytes:
            self._bytes = now
        return (self._bytes,)

    def items(self) -> Items:
        """Return a copy of all values by name."""
        return {"numbers": self._array.copy()}

    def change(self, before: Items) -> str | None:
        """Return the name of the array if its numbers are others."""
        return self.owner if self._array.tobytes() != before["numbers"].tobytes() else None

    def undo(self, before: Items) -> None:
        """Put the numbers back."""
        if self.change(before) is not None:
            self._array[...] = before["numbers"]


@final
class IteratorHolder(Holder):
    """An iterator of Python's: what it yields next cannot be seen, nor put back.

    Args:
        kind: What it is.
        owner: Whose it is.
    """

    def __init__(self, kind: str, owner: str) -> None:
        self.owner = owner
        self.kind = kind

    def read(self) -> Values:
        """Return the values a program depends on: none that can be seen."""
        return ()

    def items(self) -> Items:
        """Return a copy of all values: none."""
        return {}

    def put(self, items: Items) -> None:
        """Put nothing back."""
