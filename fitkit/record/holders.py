"""Where Python keeps values: attributes, containers, the outer variables of functions."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from types import FunctionType
from typing import Any, cast, final

from torch import Tensor

__all__ = [
    "AttributeHolder",
    "ClassHolder",
    "Container",
    "ContainerHolder",
    "FunctionHolder",
    "Holder",
    "SlotsHolder",
    "Values",
    "fingerprint",
]

Values = tuple[object, ...]
Items = dict[Any, Any]
Container = dict[Any, Any] | list[Any] | deque[Any] | set[Any]

SCALARS = (int, float, bool, str, type(None), complex, bytes)
_MAX_ITEMS = 4096
_GONE = object()


def fingerprint(values: Values) -> Values:
    """Return something hashable, equal where the values are: scalars by value, others by id."""
    return tuple(
        (type(value), value) if isinstance(value, SCALARS) else id(value) for value in values
    )


class Holder:
    """Some named values that live together.

    Attributes:
        owner: Whose values they are, for messages.
    """

    owner: str

    def read(self) -> Values:
        """Return the values a program depends on, as they are now."""
        raise NotImplementedError

    def items(self) -> Items:
        """Return a copy of all values by name."""
        raise NotImplementedError

    def put(self, items: Items) -> None:
        """Put a copy back."""
        raise NotImplementedError

    def counts(self, name: Any, old: Any, new: Any) -> bool:
        """Return whether a step may not make this change."""
        return True

    def label(self, name: Any) -> str:
        """Return what a value is called in messages."""
        return f"{self.owner}.{name}"

    def change(self, before: Items) -> str | None:
        """Return the name of the first change since `before` that counts."""
        now = self.items()
        for name in before | now:
            old, new = before.get(name, _GONE), now.get(name, _GONE)
            if not _same(old, new) and self.counts(name, old, new):
                return self.label(name)
        return None

    def undo(self, before: Items) -> None:
        """Put back what is another object than it was in `before`."""
        now = self.items()
        if any(now.get(n, _GONE) is not before.get(n, _GONE) for n in before | now):
            self.put(before)


def _same(old: Any, new: Any) -> bool:
    if old is new:
        return True
    return isinstance(old, SCALARS) and type(old) is type(new) and old == new


@final
class AttributeHolder(Holder):
    """The attributes of an object.

    Args:
        thing: The object.
        names: Those that count; None is all, also those to come.
    """

    def __init__(self, thing: Any, names: Sequence[str] | None = None) -> None:
        self.owner = type(thing).__name__
        self._dict = cast(dict[str, object], vars(thing))
        self._names = None if names is None else frozenset(names)
        self._get = None if names is None else _getter(names)

    def narrow(self, mentioned: frozenset[str]) -> None:
        """Read only attributes that the code mentions; all that there are count all the same."""
        self._get = _getter([name for name in self._dict if name in mentioned])

    def read(self) -> Values:
        """Return the values a program depends on, as they are now."""
        if self._get is None:
            return tuple(self._dict.values())
        try:
            values = self._get(self._dict)
        except KeyError:  # an attribute was deleted
            return ()
        return values if self._names is not None else (len(self._dict), *values)

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


def _getter(names: Sequence[str]) -> Callable[[dict[str, object]], Values]:
    if len(names) > 1:
        return cast(Any, itemgetter(*names))  # in C: it runs at every step
    return lambda held: tuple([held[name] for name in names])


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
        return tuple([getattr(self._thing, name, _GONE) for name in self._names])

    def items(self) -> Items:
        """Return a copy of all values by name."""
        return dict(zip(self._names, self.read(), strict=True))

    def put(self, items: Items) -> None:
        """Put a copy back."""
        for name, value in items.items():
            if value is not _GONE:
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
        return tuple(vars(self._kind).values())

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
        self._counts = counts

    def read(self) -> Values:
        """Return the values a program depends on, as they are now."""
        held = self._container
        values = (*held.values(), *held) if isinstance(held, dict) else tuple(held)
        return values if len(values) <= _MAX_ITEMS else (len(values), *values[:_MAX_ITEMS])

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
        return (*cells, *[self._globals.get(name, _GONE) for name in self._names])

    def items(self) -> Items:
        """Return a copy of all values by name."""
        return dict(zip((*self._cells, *self._names), self.read(), strict=True))

    def put(self, items: Items) -> None:
        """Put a copy back."""
        for name, value in items.items():
            if value is _GONE:
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
        return _GONE
