"""Whether a walk would find again what it found: everything it looked at, by identity."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from itertools import chain, islice
from operator import attrgetter, call, is_
from typing import Any, cast, final

import numpy as np
import torch
from torch import Tensor

from fitkit.loop.events import Event, Phase

__all__ = ["MAX_ITEMS", "Seen"]

Read = Callable[[Any], Iterable[object]]

MAX_ITEMS = 64  # of a container: a walk goes no further
_NUMBERS = frozenset({int, float, bool, str, complex, bytes, torch.device})
_LEADS_NOWHERE = _NUMBERS | {type(None), Tensor, Event, Phase}
_ALL = cast(Any, iter)
_VALUES = cast(Any, dict).values
_VIEWED = cast(Any, type(vars(object))).values
_BASES = attrgetter("__mro__")


@final
class Seen:
    """What a walk has looked at. Holds it, but for tensors, so that no id comes back."""

    def __init__(self) -> None:
        self._reads: dict[tuple[int, int], tuple[Read, Any]] = {}
        self._sized: dict[int, Sized] = {}
        self._objects: list[Any] = []
        self._with_dict: list[Any] = []
        self._classes: list[type[Any]] = []

    def add(self, read: Read, of: Any) -> None:
        """Look at the values that a function reads of something."""
        self._reads[id(read), id(of)] = (read, of)

    def add_object(self, thing: Any, *, with_items: bool = False) -> None:
        """Look at the attributes of an object, and at its class and dict, which may be assigned.

        Args:
            thing: The object.
            with_items: Look at the items of containers in the place of the containers: it does
                not matter if they are made anew.
        """
        self.add_class_of(thing)
        self._with_dict.append(thing)
        if with_items:
            self.add(_flat, vars(thing))
        else:
            self.add_dict(cast(Any, vars(thing)))

    def add_class_of(self, thing: Any) -> None:
        """Look at the class of an object."""
        self._objects.append(thing)

    def add_class(self, kind: type[Any]) -> None:
        """Look at a class: its attributes, its bases, its metaclass."""
        self.add_class_of(kind)
        self._classes.append(kind)
        self.add_dict(vars(kind))

    def add_dict(self, held: Mapping[str, Any]) -> None:
        """Look at all names and values of a dict, or of the view of a class."""
        self.add_list(held)
        self.add(_VALUES if isinstance(held, dict) else _VIEWED, held)

    def add_list(self, held: Any) -> None:
        """Look at all items of a list."""
        self._sized[id(held)] = held
        self.add(_ALL, held)

    def add_items(self, held: Any) -> None:
        """Look at the first items of a container, the values of a dict."""
        self._sized[id(held)] = held
        self.add(_values_first if isinstance(held, dict) else _first, held)

    def close(self) -> None:
        """Keep what there is to see, once the walk is over."""
        self._functions, self._arguments = zip(*self._reads.values(), strict=True)
        self._lengths = self._lengths_now()
        self._places = self._places_now()
        self._keep(list(self._values()))

    def is_same(self) -> bool:
        """Return whether nothing was added, removed or replaced.

        But for plain tensors by others, and for numbers and the like by others of their type.
        """
        if self._lengths_now() != self._lengths:
            return False
        if not all(map(is_, self._places_now(), self._places)):
            return False
        now = list(self._values())
        if len(now) != len(self._kept):
            return False
        pairs = zip(now, self._kept, strict=True)
        if not all(_leads_the_same(new, old) for new, old in pairs if new is not old):
            return False
        self._keep(now)
        return True

    def _lengths_now(self) -> list[int]:
        return list(map(len, self._sized.values()))

    def _places_now(self) -> list[Any]:
        bases = map(_BASES, self._classes)
        return [*map(type, self._objects), *map(vars, self._with_dict), *bases]

    def _keep(self, values: list[Any]) -> None:
        # A tensor leads nowhere, and may be large.
        self._kept = [Tensor if type(value) is Tensor else value for value in values]

    def _values(self) -> Iterator[object]:
        return chain.from_iterable(map(cast(Any, call), self._functions, self._arguments))


def _flat(attributes: dict[str, Any]) -> Iterator[object]:
    yield from list(attributes)
    for value in list(attributes.values()):
        if isinstance(value, dict | list | tuple | frozenset):
            held = cast("dict[Any, Any] | list[Any]", value)
            yield type(held)
            items = _values_first(held) if isinstance(held, dict) else _first(held)
            yield from [item for item in items if type(item) not in _LEADS_NOWHERE]
        else:
            yield value


def _first(held: Iterable[object]) -> Iterator[object]:
    return islice(held, MAX_ITEMS)


def _values_first(held: Mapping[Any, object]) -> Iterator[object]:
    return islice(held.values(), MAX_ITEMS)


def _leads_the_same(new: Any, old: Any) -> bool:
    """Return whether a walk goes on from neither value, and counts both or none of them."""
    kind = cast("type[Any]", type(new))
    if kind is type(old):
        return kind in _NUMBERS or issubclass(kind, np.generic)
    return kind is Tensor and old is Tensor
