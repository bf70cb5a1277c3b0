"""Where Python keeps named values: attributes, slots, classes, the outer variables of functions."""

from collections.abc import Iterable, Sequence, Sized
from operator import itemgetter
from types import FunctionType, MappingProxyType
from typing import Any, cast, final

from torch import Tensor

from fitkit.record.holder import GONE, Holder, Items, Source, Values

__all__ = ["AttributeHolder", "ClassHolder", "FunctionHolder", "SlotsHolder"]

_NAMES = cast(Any, iter)
_VALUES = cast(Any, dict).values
_CLASS_VALUES = cast(Any, MappingProxyType).values


@final
class AttributeHolder(Holder):
    """The attributes of an object.

    Args:
        thing: The object.
        names: Those that count; None is all, also those to come.
        which: Whether it counts which attributes there are, besides their number: one that comes
            hides that of the class.
    """

    def __init__(
        self, thing: Any, names: Sequence[str] | None = None, *, which: bool = False
    ) -> None:
        self.owner = type(thing).__name__
        self._dict = cast(dict[str, object], vars(thing))
        self._names = None if names is None else frozenset(names)
        self._read = None if names is None else tuple(names)
        self.which = which

    def narrow(self, mentioned: frozenset[str]) -> None:
        """Read only attributes that the code mentions; all that there are count all the same."""
        self._read = tuple(name for name in self._dict if name in mentioned)

    def read(self) -> Values:
        """Return the values a program depends on, as they are now."""
        there = tuple(self._dict) if self.which else (len(self._dict),)
        if self._read is None:
            return (*there, *self._dict.values())
        return (*there, *[self._dict.get(name, GONE) for name in self._read])

    def sources(self) -> Iterable[Source]:
        """Return functions and what to call them with, to see fast whether `read` has changed."""
        there = [(_NAMES, self._dict)] if self.which else []
        if self._read is None:
            return [*there, (_VALUES, self._dict)]
        names = [name for name in self._read if name in self._dict]
        if not names:
            return there
        # Of a single name itemgetter makes no tuple, so that one is read twice.
        return [*there, (cast(Any, itemgetter(names[0], *names)), self._dict)]

    def sized(self) -> Sized | None:
        """Return what has another length when values have come or gone, if there is such."""
        return self._dict

    def items(self) -> Items:
        """Return a copy of all values by name."""
        return dict(self._dict)

    def put(self, items: Items) -> None:
        """Put a copy back."""
        for name in [name for name in self._dict if name not in items]:
            del self._dict[name]
        self._dict.update(items)

    def counts(self, name: Any, old: Any, new: Any) -> bool:
        """Return whether a step may not make this change.

        A tensor that takes the place of another one always counts: it is how state is carried
        from step to step, and a replay would not do it.
        """
        rebound = isinstance(old, Tensor) and isinstance(new, Tensor)
        return rebound or self._names is None or name in self._names


@final
class SlotsHolder(Holder):
    """The slots of an object that has no `__dict__`.

    Args:
        thing: The object.
        names: Its slots.
    """

    def __init__(self, thing: Any, names: Sequence[str]) -> None:
        self.owner = type(thing).__name__
        self._thing = thing
        self._names = tuple(names)

    def read(self) -> Values:
        """Return the values a program depends on, as they are now."""
        return tuple([getattr(self._thing, name, GONE) for name in self._names])

    def items(self) -> Items:
        """Return a copy of all values by name."""
        return dict(zip(self._names, self.read(), strict=True))

    def put(self, items: Items) -> None:
        """Put a copy back."""
        for name, value in items.items():
            if value is not GONE:
                object.__setattr__(self._thing, name, value)
            elif hasattr(self._thing, name):
                object.__delattr__(self._thing, name)


@final
class ClassHolder(Holder):
    """The attributes of a class: counters, shared settings, methods."""

    def __init__(self, kind: type[Any]) -> None:
        self.owner = kind.__name__
        self._kind = kind

    def read(self) -> Values:
        """Return the values a program depends on, as they are now."""
        return (*vars(self._kind), *vars(self._kind).values())

    def sources(self) -> Iterable[Source]:
        """Return functions and what to call them with, to see fast whether `read` has changed."""
        return [(_NAMES, vars(self._kind)), (_CLASS_VALUES, vars(self._kind))]

    def sized(self) -> Sized | None:
        """Return what has another length when values have come or gone, if there is such."""
        return vars(self._kind)

    def items(self) -> Items:
        """Return a copy of all values by name."""
        return dict(vars(self._kind))

    def put(self, items: Items) -> None:
        """Put a copy back."""
        for name, value in vars(self._kind).copy().items():
            if name not in items:
                delattr(self._kind, name)
            elif items[name] is not value:
                setattr(self._kind, name, items[name])


@final
class FunctionHolder(Holder):
    """The variables a function uses from outside: cells of its closure, globals of its module.

    Args:
        function: The function.
        names: The global variables it uses.
    """

    def __init__(self, function: FunctionType, names: Iterable[str]) -> None:
        self.owner = function.__qualname__
        self._cells = dict(
            zip(function.__code__.co_freevars, function.__closure__ or (), strict=False)
        )
        self._globals = function.__globals__
        self._names = tuple(names)

    def read(self) -> Values:
        """Return the values a program depends on, as they are now."""
        cells = [_content(cell) for cell in self._cells.values()]
        return (*cells, *[self._globals.get(name, GONE) for name in self._names])

    def items(self) -> Items:
        """Return a copy of all values by name."""
        return dict(zip((*self._cells, *self._names), self.read(), strict=True))

    def put(self, items: Items) -> None:
        """Put a copy back."""
        for name, value in items.items():
            if value is GONE:
                continue
            if name in self._cells:
                self._cells[name].cell_contents = value
            else:
                self._globals[name] = value

    def label(self, name: Any) -> str:
        """Return what a value is called in messages."""
        return f"{self.owner}: {name}"


def _content(cell: Any) -> object:
    try:
        return cell.cell_contents
    except ValueError:
        return GONE
