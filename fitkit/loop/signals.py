"""SIGTERM and Ctrl-C while `fit` runs: the step is finished, the run is saved and closed."""

import os
import signal
import threading
from types import FrameType
from typing import Any, final

from fitkit.loop.state import State

__all__ = ["StopSignals", "ending_of"]

_WORKERS_DIE = getattr(signal, "SIGCHLD", None)  # Windows has none


@final
class StopSignals:
    """Turns signals into a stop while it is entered, and delivers them when all is closed.

    A handler only sets flags. A second Ctrl-C raises KeyboardInterrupt at once. Signals that are
    ignored stay ignored; in other threads than the main one nothing is done, because Python lets no
    other set handlers.

    When the body has ended, earlier handlers are back and the signal is delivered to them:
    KeyboardInterrupt for Ctrl-C, SystemExit(143) for SIGTERM, or whatever a handler of the program
    does. If the body raises, that error goes on instead.

    Args:
        state: Its `stop_signal` is written.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._previous: dict[int, Any] = {}
        self._pid = 0

    def __enter__(self) -> "StopSignals":
        """Install the handlers."""
        self._state.stop_signal = None
        self._pid = os.getpid()
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                previous = signal.getsignal(number)
                if previous not in (None, signal.SIG_IGN):  # None: not Python's, nobody's business
                    self._previous[number] = previous
                    signal.signal(number, self._handle)
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Put the earlier handlers back; deliver the signal to them."""
        for number, previous in self._previous.items():
            signal.signal(number, previous)
        number, self._state.stop_signal = self._state.stop_signal, None
        if number is None or error is not None:
            return
        if self._previous[number] is signal.SIG_DFL:
            raise ending_of(number)
        signal.raise_signal(number)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid and number == signal.SIGTERM:  # a child that was forked
            signal.signal(number, self._previous[number])
            os.kill(os.getpid(), number)
        elif number == signal.SIGINT and self._state.stop_signal is not None:
            raise KeyboardInterrupt
        elif self._state.stop_signal is None:
            self._state.stop_signal = number
            self._state.request_stop(signal.Signals(number).name)
            self._let_workers_die()

    def _let_workers_die(self) -> None:
        """Keep torch from raising in mid-step because the signal has ended its workers, too."""
        if _WORKERS_DIE is not None:
            previous = signal.getsignal(_WORKERS_DIE)
            if getattr(previous, "__module__", "").startswith("torch."):
                self._previous[_WORKERS_DIE] = previous
                signal.signal(_WORKERS_DIE, signal.SIG_DFL)


def ending_of(number: int) -> BaseException:
    """Return what ends a program that a signal has stopped."""
    return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)
