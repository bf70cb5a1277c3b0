"""Times laps of training without waiting for the device."""

from collections.abc import Callable
from typing import Any

import torch

from fitkit.errors import ConfigError
from fitkit.loop.events import Phase
from fitkit.loop.state import State

__all__ = ["Stopwatch", "check_warmup"]


def check_warmup(value: object) -> int:
    """Return `value` if it is an int of at least 0.

    Raises:
        ConfigError: If it is anything else.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise ConfigError(f"warmup={value!r} is out of range\nGive a whole number of at least 0.")


class Stopwatch:
    """Measures laps that may be interrupted; passes other than training do not count.

    On the CPU a moment is a reading of the clock. On other devices it is an event put into the
    stream of the device, and only `read` waits for the last one.

    Args:
        clock: Seconds; used on the CPU.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._device = torch.device("cpu")
        self._now: Callable[[], Any] = clock  # a moment
        self._since: Any = None  # the moment the current piece began; None while it stands still
        self._pieces: list[tuple[Any, Any]] = []
        self._laps: list[list[tuple[Any, Any]]] = []
        self._outer: list[bool] = []

    def __len__(self) -> int:
        """Return the number of laps that were not read yet."""
        return len(self._laps)

    def clear(self, device: torch.device) -> None:
        """Forget everything, also the passes that an error has left."""
        self._device = device
        self._now = self._clock if device.type == "cpu" else self._event
        self._since = None
        self._outer.clear()
        self.restart()

    def restart(self) -> None:
        """Forget the laps so far; go on from here if running."""
        self._pieces, self._laps = [], []
        if self._since is not None:
            self._since = self._now()

    def enter(self, state: State) -> None:
        """Begin a pass: run in a training pass, stand still in any other."""
        self._outer.append(self._since is not None)
        self._pause()
        if state.phase is Phase.TRAIN:
            self._since = self._now()

    def leave(self) -> None:
        """End a pass: run again if a training pass was interrupted by it."""
        self._pause()
        if self._outer.pop():
            self._since = self._now()

    def lap(self) -> int:
        """End a lap at this moment; return how many were not read yet. Syncs: never."""
        if self._since is not None:
            begin, self._since = self._since, self._now()
            self._pieces.append((begin, self._since))
        self._laps.append(self._pieces)
        self._pieces = []
        return len(self._laps)

    def read(self) -> list[float]:
        """Return the seconds of the laps since the last time, and forget those laps.

        Syncs: once, for the end of the last lap; never on the CPU.
        """
        laps, self._laps = self._laps, []
        if self._device.type != "cpu" and laps:
            laps[-1][-1][1].synchronize()  # sync: once per window, device times are read here
        return [sum(self._between(*piece) for piece in pieces) for pieces in laps]

    def _pause(self) -> None:
        if self._since is not None:
            self._pieces.append((self._since, self._now()))
            self._since = None

    def _event(self) -> Any:
        event = torch.Event(self._device, enable_timing=True)
        event.record()
        return event

    def _between(self, begin: Any, end: Any) -> float:
        return end - begin if self._device.type == "cpu" else begin.elapsed_time(end) / 1e3
