"""DataLoader workers that are killed: what they held must not hold up the run."""

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar, cast

__all__ = ["begin"]

LOCK_S = 2.0
"""Seconds after which a worker's lock is taken: one that lives holds it for an instant."""

Item = TypeVar("Item")


def begin(loader: Iterable[Item]) -> Iterator[Item]:
    """Return `iter(loader)`, whose end never waits for a worker that is dead.

    A torch DataLoader tells its workers the end by an event, and they look at it under a lock
    before every batch. One that is killed at this moment (SIGTERM to the group, out of memory)
    takes the lock along, and `set()` in this process would wait for it without end.
    """
    source = iter(loader)
    event = getattr(
        source, "_workers_done_event", None
    )  # torch's and torchdata's; none: no workers
    if event is not None and not isinstance(event, _Settable):
        cast("Any", source)._workers_done_event = _Settable(event)
    return source


class _Settable:
    """This process's side of a multiprocessing.Event; the workers have the event itself."""

    def __init__(self, event: Any) -> None:
        self._event = event

    def set(self) -> None:
        """Set the event; a lock that is not given back in `LOCK_S` seconds is taken."""
        lock, flag = self._event._cond, self._event._flag
        lock.acquire(timeout=LOCK_S)  # or its owner is dead
        flag.acquire(False)
        flag.release()  # nobody to notify: workers ask, they never wait
        lock.release()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._event, name)
