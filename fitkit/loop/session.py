"""Opening and closing the callbacks of a run, whatever happens in between."""

from collections.abc import Callable

from fitkit.loop.bus import EventBus
from fitkit.loop.callback import Callback, Hook, listens_to
from fitkit.loop.events import Event, hook_name
from fitkit.loop.lifetime import is_placed
from fitkit.loop.origin import raised_in
from fitkit.loop.state import State

__all__ = ["Session"]


class Session:
    """Delivers OPEN, EXCEPTION and CLOSE: each callback that was opened is closed exactly once.

    An error is re-raised as it is, with a note that says which callback, event and step it came
    from. Errors of EXCEPTION and CLOSE hooks never hide it: they become notes as well.
    """

    def __init__(self, bus: EventBus, state: State) -> None:
        self._bus = bus
        self._state = state
        self._opened: list[Callback] = []

    def run(self, callbacks: list[Callback], body: Callable[[], object]) -> None:
        """Open `callbacks` in order, run the body, close those opened in reverse order."""
        error: BaseException | None = None
        try:
            for callback in callbacks:
                self.open(callback)
            body()
        except BaseException as raised:
            error = raised
            _add_origin(error, self._state)
            self._state.error = error
            for callback in self._opened:
                self._call_safely(Event.EXCEPTION, callback, error)
            raise
        finally:
            self._state.error = None
            try:
                self._close_all(error)
            finally:
                del error  # its traceback holds this frame, and so the model

    def open(self, callback: Callback) -> None:
        """Deliver OPEN; the callback is closed at the end of the run if this returned."""
        if listens_to(callback, Event.OPEN):
            self._bus.call(Event.OPEN, callback.on_open)
        self._opened.append(callback)

    def close(self, callback: Callback) -> None:
        """Deliver CLOSE to a callback that leaves before the end of the run."""
        if callback in self._opened:
            self._opened.remove(callback)
            self._bus.call(Event.CLOSE, callback.on_close)

    def _close_all(self, error: BaseException | None) -> None:
        first: BaseException | None = None
        while self._opened:
            raised = self._call_safely(Event.CLOSE, self._opened.pop(), error or first)
            first = first or raised
        if first is not None and error is None:
            raise first

    def _call_safely(
        self, event: Event, callback: Callback, error: BaseException | None
    ) -> BaseException | None:
        """Call one hook; what it raises becomes a note of `error`, or is returned."""
        if not listens_to(callback, event):
            return None
        hook: Hook = getattr(callback, hook_name(event))
        try:
            self._bus.call(event, hook)
        except BaseException as raised:  # every other callback must still be closed
            if error is not None:
                error.add_note(
                    f"{type(callback).__name__}.{hook_name(event)} raised too: {raised!r}"
                )
                return None
            _add_origin(raised, self._state)
            return raised
        return None


def _add_origin(error: BaseException, state: State) -> None:
    """Note which hook raised; which batch it was, the frame of the pass has noted."""
    if not is_placed(error):
        error.add_note(f"outside of a pass, {state.place()}")
    error.add_note(f"raised in {raised_in(error.__traceback__) or 'no callback'}")
