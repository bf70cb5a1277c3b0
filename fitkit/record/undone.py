"""Around a trace: what it changes in Python is refused, and everything is put back."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, final

from fitkit.loop.bus import EventBus, owner_of
from fitkit.loop.callback import Hook
from fitkit.loop.events import Event
from fitkit.loop.state import State
from fitkit.record.generators import Generators
from fitkit.record.published import refuse_extras
from fitkit.record.python_state import PythonState
from fitkit.record.refused import Refused, unswallowed
from fitkit.record.region import line_of

__all__ = ["undone"]


@contextmanager
def undone(bus: EventBus, state: State, python: PythonState) -> Generator[None]:
    """Leave nothing behind of the hooks that run inside, whatever they raise.

    Raises:
        Refused: If a hook changed what only Python can change; names callback, event and line.
    """
    log_buffer, watch = state.log_buffer, _Watch(python, turns=len(bus.turns) > 1)
    names = log_buffer.names
    bus.add_tracer(watch)
    try:
        with unswallowed():
            yield
        if new := log_buffer.names - names:
            raise Refused(f"the step logs what the step before did not log: {', '.join(new)}")
    except Refused as refusal:
        refusal.event, refusal.callback = watch.event, watch.callback
        raise
    finally:
        bus.remove_tracer(watch)
        watch.undo()
        log_buffer.keep_only(names)


@final
class _Watch:
    """Calls the hooks of a trace: knows which one runs, and refuses it if it changes Python."""

    def __init__(self, python: PythonState, *, turns: bool) -> None:
        self.event: Event | None = None
        self.callback = ""
        self._python = python
        self._before: list[dict[Any, Any]] = python.snapshot()
        self._generators = Generators()
        self._extra: dict[str, Any] | None = None
        self._turns = turns

    def __call__(self, event: Event, hook: Hook, state: State) -> None:
        self.event, self.callback = event, type(owner_of(hook)).__name__
        if self._extra is None:
            self._extra = dict(vars(state.extra))
        with unswallowed():
            hook(state)
        refuse_extras(self._extra, vars(state.extra), line_of(hook), turns=self._turns)
        change = self._python.change(self._before)
        if change is not None:
            reason = f"the step changes Python state: {change}"
            raise Refused(reason, line_of(hook), changes_python=True)
        drawn = self._generators.drawn()
        if drawn is not None:
            raise Refused(f"the step draws from the host generator of {drawn}", line_of(hook))

    def undo(self) -> None:
        """Put everything back."""
        self._python.restore(self._before)
        self._generators.restore()
