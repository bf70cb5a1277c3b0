"""Which hook is running: read off the call stack, so that firing an event stays a bare loop."""

from collections.abc import Callable
from types import CodeType, FrameType, FunctionType, TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, cast

from fitkit.loop.events import Event, hook_name

if TYPE_CHECKING:
    from fitkit.loop.callback import Callback, Hook

__all__ = ["Origin", "emitter", "owner_of", "raised_in", "running"]

Origin = tuple["Hook", Event]

_EMITTERS: list[CodeType] = []  # no set: code objects are compared fast and hashed slowly

_F = TypeVar("_F", bound=Callable[..., Any])


def emitter(function: _F) -> _F:
    """Mark a function that calls hooks; its variables `hook` and `event` tell which."""
    _EMITTERS.append(cast(FunctionType, function).__code__)
    return function


def owner_of(hook: "Hook") -> "Callback":
    """Return the callback a hook of the table belongs to."""
    return cast(Any, hook).__self__


def running(frame: FrameType | None) -> Origin | None:
    """Return the innermost hook that a frame runs in, and its event."""
    while frame is not None:
        if frame.f_code in _EMITTERS:
            return _called_by(frame)
        frame = frame.f_back
    return None


def raised_in(traceback: TracebackType | None) -> str | None:
    """Return "Callback.hook at EVENT" of the innermost hook that an error came through."""
    found: str | None = None
    while traceback is not None:
        if traceback.tb_frame.f_code in _EMITTERS:
            hook, event = _called_by(traceback.tb_frame)
            found = f"{type(owner_of(hook)).__name__}.{hook_name(event)} at {event.name}"
        traceback = traceback.tb_next
    return found


def _called_by(frame: FrameType) -> Origin:
    variables = frame.f_locals
    return variables["hook"], variables["event"]
