"""Where Python keeps values that a step depends on: what every such place can be asked."""

from collections.abc import Callable, Iterable, Sized
from typing import Any

__all__ = ["GONE", "SCALARS", "Holder", "Items", "Source", "Values", "fingerprint"]

Values = tuple[object, ...]
Source = tuple[Callable[[Any], Iterable[object]], Any]
Items = dict[Any, Any]

SCALARS = (int, float, bool, str, type(None), complex, bytes)
GONE = object()


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

    def sources(self) -> Iterable[Source]:
        """Return functions and what to call them with, to see fast whether `read` has changed.

        They run at every step, so they are functions of C where possible. They may raise KeyError
        where something was deleted.
        """
        return [(type(self).read, self)]

    def sized(self) -> Sized | None:
        """Return what has another length when values have come or gone, if there is such."""
        return None

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
            old, new = before.get(name, GONE), now.get(name, GONE)
            if not _same(old, new) and self.counts(name, old, new):
                return self.label(name)
        return None

    def undo(self, before: Items) -> None:
        """Put back what is another object than it was in `before`."""
        now = self.items()
        if any(now.get(n, GONE) is not before.get(n, GONE) for n in before | now):
            self.put(before)


def _same(old: Any, new: Any) -> bool:
    if old is new:
        return True
    return isinstance(old, SCALARS) and type(old) is type(new) and old == new
