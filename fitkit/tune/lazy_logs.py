"""Logs of a batch that become floats when somebody reads them."""

from collections.abc import Callable
from typing import Any, cast

__all__ = ["LazyLogs"]

_READING = (
    *("__contains__", "__eq__", "__ior__", "__iter__", "__len__", "__ne__"),
    *("__or__", "__repr__", "__reversed__", "__ror__", "__setitem__", "__delitem__"),
    *("copy", "items", "keys", "pop", "popitem", "setdefault", "update", "values"),
)


class _Logs(dict[str, Any]):
    """Logs that have been read: a dict like any other."""

    __slots__ = ("__weakref__", "one", "source")
    source: Callable[[], dict[str, Any]] | None
    one: Callable[[str], Any] | None

    def settle(self) -> None:
        """Nothing is left to be read."""


class LazyLogs(_Logs):
    """A dict that asks `read` for its content at the first look into it.

    A Keras callback that never looks costs no sync; one that looks gets floats, as from Keras.

    Args:
        read: Returns the content. It reads the state of now, so logs that somebody keeps (a weak
            reference tells) must be settled before the next batch.
        one: Returns the value of a name, if that can be had without reading all, otherwise None.
            Where it is given, there are logs.
    """

    __slots__ = ()

    def __init__(
        self, read: Callable[[], dict[str, Any]], one: Callable[[str], Any] | None = None
    ) -> None:
        self.source, self.one = read, one

    def __bool__(self) -> bool:
        """Return whether there are logs."""
        return self.one is not None or len(self) > 0

    def __getitem__(self, name: str) -> Any:
        """Return the value of a name."""
        value = None if self.one is None else self.one(name)
        return cast(Any, _filled(self))[name] if value is None else value

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value of a name, or the default."""
        value = None if self.one is None else self.one(name)
        return _filled(self).get(name, default) if value is None else value

    def settle(self) -> None:
        """Read now, if that has not been done: later they would tell of another batch."""
        _filled(self)


def _filled(logs: Any) -> dict[str, Any]:
    read, logs.source, logs.one = logs.source, None, None
    logs.__class__ = _Logs  # from now on every method is that of a plain dict
    if read is not None:
        logs.update(read())
    return logs


def _reading(name: str) -> Callable[..., Any]:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(_filled(self), name)(*args, **kwargs)

    method.__name__ = name
    return method


for _name in _READING:
    setattr(LazyLogs, _name, cast(Any, _reading(_name)))
