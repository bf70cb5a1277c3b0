"""The one grammar of "how often": 100, "1 epoch", "500 updates", "10 minutes"."""

import math
import re
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from fitkit.errors import ConfigError, brief
from fitkit.loop.state import State

__all__ = ["Interval", "not_negative", "positive_int"]

Unit = Literal["update", "epoch", "minute"]
_INTEGERS: tuple[type, ...] = (int, np.integer)
_GRAMMAR = re.compile(r"(\d+(?:\.\d+)?)\s+(update|epoch|minute)s?")


@dataclass(slots=True)
class Interval:
    """A repeating point in a run. An int counts updates (completed accumulation windows).

    It is due at multiples of `count`, so a resumed run keeps the rhythm without saving anything.
    """

    count: float
    unit: Unit
    _next: float = field(init=False)  # from here on it is due

    def __post_init__(self) -> None:
        """Count from 0."""
        self._next = self.count

    @classmethod
    def parse(cls, every: int | str, *, argument: str = "every") -> "Interval":
        """Read an interval.

        Raises:
            ConfigError: If it is none of: a positive int, "N updates", "N epochs", "N minutes".
        """
        if isinstance(every, int) and not isinstance(every, bool) and every > 0:
            return cls(every, "update")
        match = _GRAMMAR.fullmatch(every.strip()) if isinstance(every, str) else None
        count = float(match[1]) if match else 0.0
        unit = match[2] if match else ""
        if count > 0 and (unit == "minute" or count.is_integer()):
            return cls(count, unit)  # pyright: ignore[reportArgumentType]  # from the grammar
        raise ConfigError(
            f"{argument}={brief(every)} is no interval, expected a positive int or a string\n"
            'Use a positive int (updates), "1 epoch", "500 updates" or "10 minutes".'
        )

    def start(self, state: State) -> None:
        """Begin to count here; called at FIT_BEGIN."""
        self.mark(state)

    def due(self, state: State) -> bool:
        """Return whether a multiple of `count` was passed since the last `mark`. Syncs: never."""
        if self.unit == "update":  # asked after every step
            return state.num_updates >= self._next
        return self._now(state) >= self._next

    def updates_left(self, state: State) -> int:
        """Return how many updates at least come before it is due, 1 if it is due or may be soon."""
        return max(1, int(self._next) - state.num_updates) if self.unit == "update" else 1

    def mark(self, state: State) -> None:
        """Remember that what was due has been done."""
        self._next = (self._now(state) // self.count + 1) * self.count

    def comes_again(self, state: State, num_batches: int | None) -> bool:
        """Return whether it is due more than once in this run, as far as the limits of it tell.

        Args:
            state: Knows the limits.
            num_batches: Of an epoch, if that is known; an update takes one or more of them.
        """
        epochs = math.inf if state.max_epochs is None else state.max_epochs - state.epoch
        steps = math.inf if state.max_steps is None else state.max_steps - state.num_updates
        minutes = math.inf if state.max_time_s is None else state.max_time_s / 60
        updates = min(steps, epochs * (math.inf if num_batches is None else num_batches))
        rest = {"epoch": epochs, "update": updates, "minute": minutes}[self.unit]
        if rest == math.inf:
            return self.unit == "update"  # the first epoch may last for ever
        now = self._now(state)
        return (now + rest) // self.count - now // self.count > 1

    def _now(self, state: State) -> float:
        if self.unit == "update":
            return state.num_updates
        if self.unit == "epoch":
            return state.num_epochs
        return state.elapsed_s / 60


def positive_int(argument: str, value: Any) -> int:
    """Return `value` if it is an int above 0.

    Raises:
        ConfigError: If it is anything else: zero, negative, a float, a bool, NaN.
    """
    if isinstance(value, _INTEGERS) and not isinstance(value, bool) and value > 0:
        return int(value)
    raise ConfigError(
        f"{argument}={brief(value)} ({type(value).__name__}), expected an int of at least 1\n"
        f"Give a whole number, for example {argument}=1."
    )


def not_negative(owner: str, argument: str, value: Any) -> float:
    """Return `value` if it is a finite number of at least 0.

    Raises:
        ConfigError: If it is anything else.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and 0 <= value < math.inf:
        return float(value)  # sync: none, it is a number
    raise ConfigError(
        f"{owner}({argument}={brief(value)}) got a {type(value).__name__}, expected a number >= 0\n"
        f"Give a finite number, for example {argument}=0.001."
    )
