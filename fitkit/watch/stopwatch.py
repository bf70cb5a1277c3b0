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
        self._runs = False
        # Of the laps that were not read yet, and of the one that goes on:
        self._ends: list[Any] = []
        self._starts: dict[int, Any] = {}  # where it is not the end of the one before
        self._pieces: list[tuple[int, Any, Any]] = []  # which lap, from when, to when: interrupted
        self._outer: list[bool] = []

    def __len__(self) -> int:
        """Return the number of laps that were not read yet."""
        return len(self._ends)

    def clear(self, device: torch.device) -> None:
        """Forget everything, also the passes that an error has left; stand still."""
        self._device = device
        self._now = self._clock if device.type == "cpu" else self._event
        self._runs = False
        self._outer.clear()
        self.restart()

    def restart(self) -> None:
        """Forget the laps so far; go on from here if running."""
        self._ends, self._pieces = [], []
        self._starts = {0: self._now()} if self._runs else {}

    def enter(self, state: State) -> None:
        """Begin a pass: run in a training pass, stand still in any other."""
        self._outer.append(self._runs)
        self._stop()
        if state.phase is Phase.TRAIN:
            self._go_on()

    def leave(self) -> None:
        """End a pass: run again if a training pass was interrupted by it."""
        self._stop()
        if self._outer.pop():
            self._go_on()

    def lap(self) -> int:
        """End a lap at this moment, if it runs. Syncs: never.

        Returns:
            How many laps were not read yet; 0 while it stands still.
        """
        if not self._runs:
            return 0
        ends = self._ends
        ends.append(self._now())
        return len(ends)

    def read(self) -> list[float]:
        """Return the seconds of the laps since the last time, and forget those laps.

        Syncs: once, for the end of the last lap; never on the CPU.
        """
        ends, starts, pieces = self._ends, self._starts, self._pieces
        if not ends:
            return []
        if self._device.type != "cpu":
            ends[-1].synchronize()  # sync: once per window, device times are read here
        begins = [None, *ends]
        for place, begin in starts.items():
            begins[place] = begin
        if self._device.type == "cpu":
            laps = [end - begin for begin, end in zip(begins, ends, strict=False)]
        else:
            laps = [self._between(*both) for both in zip(begins, ends, strict=False)]
        self._ends, self._starts, self._pieces = [], {0: begins[-1]}, []
        for place, begin, end in pieces:
            if place < len(laps):
                laps[place] += self._between(begin, end)
            else:
                self._pieces.append((0, begin, end))
        return laps

    def _stop(self) -> None:
        if self._runs:
            place = len(self._ends)
            begin = self._starts[place] if place in self._starts else self._ends[-1]
            self._pieces.append((place, begin, self._now()))
            self._runs = False

    def _go_on(self) -> None:
        self._starts[len(self._ends)] = self._now()
        self._runs = True

    def _event(self) -> Any:
        event = torch.Event(self._device, enable_timing=True)
        event.record()
        return event

    def _between(self, begin: Any, end: Any) -> float:
        return end - begin if self._device.type == "cpu" else begin.elapsed_time(end) / 1e3
