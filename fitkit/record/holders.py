"""Where Python keeps values: attributes, containers, the outer variables of functions."""

from collections.abc import Callable
from operator import is_, itemgetter
from types import FunctionType
from typing import Any, cast, final

__all__ = [
    "AttributeHolder",
    "ContainerHolder",
    "FunctionHolder",
    "Holder",
    "Values",
    "fingerprint",
]

Values = tuple[object, ...]

SCALARS = (int, float, bool, str, type(None), complex, bytes)


def fingerprint(values: Values) -> Values:
    """Return something hashable, equal where the values are: scalars by value, others by id."""
    return tuple(
        (type(value), value) if isinstance(value, SCALARS) else id(value) for value in values
    )


class Holder:
    """Some named values that live together."""

    owner: str

    def read(self) -> Values:
        """Return the values now."""
        raise NotImplementedError

    def write(self, values: Values) -> None:
        """Put values back."""
        raise NotImplementedError

    def changed(self, before: Values) -> str | None:
        """Return the name of the first value that is another one than before."""
        now = self.read()
        if len(now) == len(before) and all(map(is_, now, before)):
            return None
        old, new = fingerprint(before), fingerprint(now)
        pairs = zip(self.names(), old, new, strict=False)
        first = next((name for name, was, is_now in pairs if was != is_now), None)
        return first if first or len(now) == len(before) else "its items"

    def names(self) -> list[str]:
        """Return what the values are called."""
        raise NotImplementedError


@final
class AttributeHolder(Holder):
    """The attributes of an object; of a library's object only the public ones, and scalars."""

    def __init__(self, thing: Any, of_library: bool) -> None:
        self.owner = type(thing).__name__
        self._dict = cast(dict[str, object], vars(thing))
        self._open = not of_library
        public = [name for name, value in self._dict.items() if _is_public(name, value)]
        self._names: tuple[str, ...] = tuple(public if of_library else self._dict)
        get: Any = itemgetter(*self._names) if len(self._names) > 1 else self._get_few
        self._get: Callable[[dict[str, object]], Values] = get

    def _get_few(self, held: dict[str, object]) -> Values:
        return tuple(held[name] for name in self._names)

    def names(self) -> list[str]:
        """Return what the values are called."""
        return list(self._dict) if self._open else list(self._names)

    def read(self) -> Values:
        """Return the values now."""
        try:
            return tuple(self._dict.values()) if self._open else self._get(self._dict)
        except KeyError:  # an attribute was deleted
            return ()

    def write(self, values: Values) -> None:
        """Put values back."""
        names = self.names()
        self._dict.update(zip(names, values, strict=False))
        for name in names[len(values) :]:  # attributes the trace has added
            del self._dict[name]


@final
class ContainerHolder(Holder):
    """The items of a list or dict."""

    def __init__(self, container: "dict[Any, Any] | list[Any]", owner: str) -> None:
        self.owner = owner
        self._container = container

    def names(self) -> list[str]:
        """Return what the values are called."""
        keys = self._container if isinstance(self._container, dict) else range(len(self._container))
        return [f"[{key!r}]" for key in keys]

    def read(self) -> Values:
        """Return the values now."""
        held = self._container
        return tuple(held.values()) if isinstance(held, dict) else tuple(held)

    def write(self, values: Values) -> None:
        """Put values back."""
        if isinstance(self._container, list):
            self._container[:] = values
            return
        for key, value in zip(list(self._container), values, strict=False):
            self._container[key] = value
        for key in list(self._container)[len(values) :]:
            del self._container[key]


@final
class FunctionHolder(Holder):
    """The variables a function uses from outside: cells of its closure, globals of its module."""

    def __init__(self, function: FunctionType) -> None:
        self.owner = function.__qualname__
        self._cells = function.__closure__ or ()
        self._globals = function.__globals__
        self._cell_names = function.__code__.co_freevars
        self._names = [
            name
            for name in function.__code__.co_names
            if isinstance(self._globals.get(name), SCALARS) and name in self._globals
        ]

    def names(self) -> list[str]:
        """Return what the values are called."""
        return [*self._cell_names, *self._names]

    def read(self) -> Values:
        """Return the values now."""
        cells = (_content(cell) for cell in self._cells)
        return (*cells, *(self._globals.get(name) for name in self._names))

    def write(self, values: Values) -> None:
        """Put values back."""
        for cell, value in zip(self._cells, values, strict=False):
            if value is not _EMPTY:
                cell.cell_contents = value
        for name, value in zip(self._names, values[len(self._cells) :], strict=False):
            self._globals[name] = value


_EMPTY = object()


def _content(cell: Any) -> object:
    try:
        return cell.cell_contents
    except ValueError:
        return _EMPTY


def _is_public(name: str, value: object) -> bool:
    return name[0] != "_" and (isinstance(value, SCALARS) or callable(value))
