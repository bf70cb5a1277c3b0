"""The one exception of the recorder: this step cannot be replayed right, so it runs eagerly."""

import linecache
import sys
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType
from typing import Self, final

from fitkit.loop.events import Event

# Frames of these packages are never "the user's line": they run on the user's behalf.
_LIBRARIES = frozenset({"torch", "keras", "fitkit", "numpy", "torchmetrics"})
_RECORDER = "fitkit.record"


_raised: list["Refused"] = []


class Refused(Exception):
    """A verdict, raised while tracing when a replay could differ from the step as it is written.

    Args:
        reason: What in the step cannot be replayed, one line.
        where: The line that did it, as ``file:line in function: source``; empty when unknown.
        changes_python: Whether the reason is that the step changes Python state.

    Attributes:
        event: The event at which it happened, if one is to blame.
        callback: The name of the callback's class.
        advice: What to do about it, if that is known.
    """

    _keras_call_info_injected = True  # else Keras raises a copy that tells its own story

    def __init__(self, reason: str, where: str = "", *, changes_python: bool = False) -> None:
        super().__init__(f"{reason} ({where})" if where else reason)
        self.reason = reason
        self.where = where
        self.changes_python = changes_python
        self.event: Event | None = None
        self.callback = ""
        self.advice = ""
        _raised.append(self)

    def forgetful(self) -> Self:
        """Return the verdict itself without the frames it came through: they hold the model."""
        self.__cause__ = self.__context__ = None
        return self.with_traceback(None)

    def __str__(self) -> str:
        """Return callback, event, reason and line, as far as they are known."""
        hook = f"{self.callback} at {self.event.name}: " if self.event is not None else ""
        advice = f"\n{self.advice}" if self.advice else ""
        return hook + super().__str__() + advice


@final
class WritesNumber(Refused):
    """The step writes into a tensor made from a Python number: it needs copies of them."""


@contextmanager
def unswallowed() -> Generator[None]:
    """Raise the first refusal of a trace again if the step has caught it.

    A hook with `except Exception` must not go on as if the value it asked for did not exist.

    Raises:
        Refused: That refusal.
    """
    _raised.clear()
    try:
        yield
        if _raised:
            raise _raised[0]
    finally:
        _raised.clear()


def culprit(frames: list[FrameType]) -> str:
    """Name the line to blame among the frames of a traced step, given innermost first.

    The innermost frame of the user's own code wins. A step made of library code alone is blamed
    on the innermost frame outside torch and the recorder, for example a Keras optimizer's file.

    Returns:
        ``file:line in function: source``, or an empty string if there is no such frame.
    """
    own = [f for f in frames if _package(f) not in _LIBRARIES and not _generated(f)]
    library = [f for f in frames if _package(f) != "torch" and not _of_recorder(f)]
    chosen = next(iter([*own, *library]), None)
    return "" if chosen is None else _describe(chosen)


def running_frames() -> list[FrameType]:
    """Return the frames of the traced step, innermost first, up to the tracer's own."""
    frames: list[FrameType] = []
    frame: FrameType | None = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    while frame is not None and not _is_tracer(frame):
        frames.append(frame)
        frame = frame.f_back
    return frames


def raised_frames(error: BaseException) -> list[FrameType]:
    """Return the frames of the traced step that an exception went through, innermost first."""
    frames: list[FrameType] = []
    step = error.__traceback__
    while step is not None:
        if _is_tracer(step.tb_frame):
            frames.clear()
        else:
            frames.append(step.tb_frame)
        step = step.tb_next
    return frames[::-1]


def _is_tracer(frame: FrameType) -> bool:
    return _module(frame) == f"{_RECORDER}.trace"


def _of_recorder(frame: FrameType) -> bool:
    return _module(frame).startswith(_RECORDER)


def _generated(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith("<")


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _package(frame: FrameType) -> str:
    return _module(frame).partition(".")[0]


def _describe(frame: FrameType) -> str:
    file, line = frame.f_code.co_filename, frame.f_lineno
    source = linecache.getline(file, line).strip()
    return f"{file}:{line} in {frame.f_code.co_name}: {source}"
