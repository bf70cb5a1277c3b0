"""The horizontal axis of the charts."""

import time
from collections.abc import Callable
from typing import Literal, get_args

from fitkit.errors import ConfigError, brief
from fitkit.loop.state import State

__all__ = ["Axis", "Kind"]

Kind = Literal["step", "epoch", "samples", "seconds"]


class Axis:
    """Where a point stands: completed updates, 0-based epochs, training samples, or seconds.

    A place is a whole number, so seconds are counted in thousandths: a run that goes on would
    otherwise have points of before and after in the same second.

    Args:
        kind: Which of them.
        clock: Seconds since 1970.

    Attributes:
        of_update: Returns where a single update stands: over updates, where the axis counts epochs.

    Raises:
        ConfigError: If there is no such axis.
    """

    def __init__(self, kind: Kind, clock: Callable[[], float] = time.time) -> None:
        if kind not in get_args(Kind):
            axes = ", ".join(f'"{axis}"' for axis in get_args(Kind))
            raise ConfigError(f"TensorBoard(x={brief(kind)}) is no axis\nUse one of: {axes}.")
        self.kind: Kind = kind
        self.clock = clock
        counted: dict[Kind, Callable[[State], int]] = {
            "samples": lambda state: state.num_samples,
            "seconds": lambda state: int(self.seconds * 1000),
        }
        self.of_update = counted.get(kind, lambda state: state.num_updates)
        self._seconds = 0.0  # of earlier calls of `fit`
        self._began_s: float | None = None  # while one is running
        self._epoch = 0
        self.is_within_epoch = False  # in its training pass

    @property
    def seconds(self) -> float:
        """Seconds of training so far."""
        return self._seconds if self._began_s is None else self.clock() - self._began_s

    def start(self, seconds: float | None = None) -> None:
        """Let the seconds run, on from where they stand or from a saved number."""
        self._began_s = self.clock() - (self._seconds if seconds is None else seconds)

    def stop(self, seconds: float | None = None) -> None:
        """Let the seconds stand still, where they are or at a saved number."""
        self._seconds = self.seconds if seconds is None else seconds
        self._began_s = None

    def begin_epoch(self, state: State) -> None:
        """Note the epoch: at FIT_END the counter has gone on."""
        self._epoch = state.epoch
        self.is_within_epoch = True

    def of_pass(self, state: State, run: str) -> tuple[str, int]:
        """Return folder and place of the results of a pass.

        A validation within an epoch stands over updates, also where the axis counts epochs.
        """
        if self.kind == "epoch" and self.is_within_epoch:
            return f"{self.of_updates_run}_{run}", self.of_update(state)
        return run, self.of_epoch(state)

    def of_epoch(self, state: State) -> int:
        """Return where the results of an epoch stand."""
        return self._epoch if self.kind == "epoch" else self.of_update(state)

    @property
    def of_updates_run(self) -> str:
        """The folder of what is written per update: two axes never share one."""
        return "updates" if self.kind == "epoch" else "train"
