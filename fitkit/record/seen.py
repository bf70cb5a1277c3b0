"""Whether a walk would find again what it found: everything it looked at, by identity.

A walk takes milliseconds, this comparison a tenth of one.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, islice
from operator import call, is_
from typing import Any, cast, final

from torch import Tensor

from fitkit.loop.events import Event, Phase

__all__ = ["MAX_ITEMS", "Seen"]

MAX_ITEMS = 64  # of a container: a walk goes no further
_SCALARS = frozenset({int, float, bool, str, complex, bytes})
_LEAVES = _SCALARS | {type(None), Tensor, Event, Phase}
_NAMES = cast(Any, iter)
_VALUES = cast(Any, dict).values
_VIEWED = cast(Any, type(vars(object))).values


@final
class Seen:
    """What a walk has looked at. Holds it, but for tensors, so that no id comes back."""

    def __init__(self) -> None:
        self._functions: list[Callable[[Any], Iterable[object]]] = []
        self._arguments: list[Any] = []
        self._sized: list[Any] = []
        self._objects: list[Any] = []

    def add_object(self, thing: Any, *, with_items: bool = False) -> None:
        """Look at the attributes of an object, and at its class, which may be assigned.

        Args:
            thing: The object.
            with_items: Look at the items of containers in the place of the containers: it does
                not matter if they are made anew.
        """
        self._objects.append(thing)
        if with_items:
            self._read(_flat, vars(thing))
        else:
            self.add_dict(cast(Any, vars(thing)))

    def add_dict(self, held: Mapping[str, Any]) -> None:
        """Look at all names and values of a dict, or of the view of a class."""
        self._sized.append(held)
        self._read(_NAMES, held)
        self._read(_VALUES if isinstance(held, dict) else _VIEWED, held)

    def add_list(self, held: Any) -> None:
        """Look at all items of a list."""
        self._sized.append(held)
        self._read(_NAMES, held)

    def add_items(self, held: Any) -> None:
        """Look at the first items of a container, the values of a dict."""
        self._sized.append(held)
        self._read(_values_first if isinstance(held, dict) else _first, held)

    def add_read(self, read: Callable[[], Iterable[object]]) -> None:
        """Look at what a function returns."""
        self._read(call, read)

    def _read(self, function: Callable[[Any], Iterable[object]], argument: Any) -> None:
        self._functions.append(function)
        self._arguments.append(argument)

    def close(self) -> None:
        """Keep what there is to see, once the walk is over."""
        self._keep(list(self._values()))
        self._lengths = list(map(len, self._sized))
        self._kinds = list(map(type, self._objects))

    def is_same(self) -> bool:
        """Return whether nothing was added, removed or replaced, but numbers by numbers."""
        if list(map(len, self._sized)) != self._lengths:
            return False
        if not all(map(is_, map(type, self._objects), self._kinds)):
            return False
        now = list(self._values())
        if len(now) != len(self._kept):
            return False
        pairs = zip(now, self._kept, strict=True)
        if not all(_leads_the_same(new, old) for new, old in pairs if new is not old):
            return False
        self._keep(now)
        return True

    def _keep(self, values: list[Any]) -> None:
        # A tensor leads nowhere, and may be large.
        self._kept = [Tensor if type(value) is Tensor else value for value in values]

    def _values(self) -> Iterator[object]:
        return chain.from_iterable(map(cast(Any, call), self._functions, self._arguments))


def _flat(attributes: dict[str, Any]) -> Iterator[object]:
    yield from attributes
    for value in attributes.values():
        if isinstance(value, dict):
            yield from _leading(_values_first(cast("dict[Any, Any]", value)))
        elif isinstance(value, list | tuple | frozenset):
            yield from _leading(_first(cast("list[Any]", value)))
        else:
            yield value


def _leading(items: Iterable[Any]) -> list[object]:
    return [item for item in items if type(item) not in _LEAVES]


def _first(held: Iterable[object]) -> Iterator[object]:
    return islice(held, MAX_ITEMS)


def _values_first(held: Mapping[Any, object]) -> Iterator[object]:
    return islice(held.values(), MAX_ITEMS)


def _leads_the_same(new: Any, old: Any) -> bool:
    """Return whether a walk goes on from neither value, and counts both or none of them."""
    kind = cast("type[Any]", type(new))
    return (kind is Tensor and old is Tensor) or (kind in _SCALARS and kind is type(old))
