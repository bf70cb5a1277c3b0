"""Ready-made schedules: functions of the 0-based step, for `LRSchedule`."""

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any, final

from fitkit.errors import ConfigError, brief
from fitkit.loop.interval import positive_int

__all__ = ["Cosine", "OneCycle", "Warmup", "WarmupStableDecay", "is_pure"]


@final
@dataclass(frozen=True)
class Warmup:
    """Rise linearly to `peak`, then stay there or follow another schedule.

    The first step has peak / (steps + 1): a rate of zero would waste it.

    Args:
        peak: The value after the warm-up, above 0.
        steps: How many steps lie below it.
        then: What follows, called with 0, 1, 2, ...; default is `peak` for ever.
    """

    peak: float
    _: KW_ONLY
    steps: int
    then: Callable[[int], float] | None = None

    def __post_init__(self) -> None:
        """Refuse what is no warm-up."""
        _check_peak(self)
        positive_int("steps", self.steps)

    def __call__(self, step: int) -> float:
        """Return the value of a step."""
        if step < self.steps:
            return _rising(self.peak, step, self.steps)
        return self.peak if self.then is None else self.then(step - self.steps)


@final
@dataclass(frozen=True)
class Cosine:
    """Fall from `peak` to `end` along half a cosine, after a linear warm-up.

    Source: Loshchilov and Hutter 2017, arXiv:1608.03983, equation 5, without restarts.

    Args:
        peak: The highest value, above 0.
        steps: All steps, those of the warm-up included; after them it stays at `end`.
        warmup: Steps that rise linearly.
        end: The last value.
    """

    peak: float
    _: KW_ONLY
    steps: int
    warmup: int = 0
    end: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a warm-up that leaves nothing."""
        _check_peak(self)
        _check_parts(self, warmup=self.warmup)

    def __call__(self, step: int) -> float:
        """Return the value of a step."""
        if step < self.warmup:
            return _rising(self.peak, step, self.warmup)
        done = min((step - self.warmup) / (self.steps - self.warmup), 1.0)
        return _cosine(self.peak, self.end, done)


@final
@dataclass(frozen=True)
class WarmupStableDecay:
    """Rise linearly to `peak`, stay there, and fall linearly to `end` in the last steps.

    Source: Hu et al. 2024, arXiv:2404.06395, section 4.

    Args:
        peak: The value in between, above 0.
        steps: All steps; after them it stays at `end`.
        warmup: Steps that rise.
        decay: Steps that fall.
        end: The last value.
    """

    peak: float
    _: KW_ONLY
    steps: int
    warmup: int
    decay: int
    end: float = 0.0

    def __post_init__(self) -> None:
        """Refuse parts that are longer than the whole."""
        _check_peak(self)
        positive_int("decay", self.decay)
        _check_parts(self, warmup=self.warmup, decay=self.decay - 1)

    def __call__(self, step: int) -> float:
        """Return the value of a step."""
        if step < self.warmup:
            return _rising(self.peak, step, self.warmup)
        left = max(self.steps - step, 0)
        return self.end + (self.peak - self.end) * min(left / self.decay, 1.0)


@final
@dataclass(frozen=True)
class OneCycle:
    """Rise from peak / div to `peak`, then fall to peak / (div * final_div), both along cosines.

    The values are those of `torch.optim.lr_scheduler.OneCycleLR`. Source: Smith and Topin 2018,
    arXiv:1708.07120.

    Args:
        peak: The highest value, above 0.
        steps: All steps; after them it stays where it ended.
        rise: The share of the steps that rise, between 0 and 1.
        div: How far below the peak it begins.
        final_div: How far below its beginning it ends.
    """

    peak: float
    _: KW_ONLY
    steps: int
    rise: float = 0.3
    div: float = 25.0
    final_div: float = 1e4

    def __post_init__(self) -> None:
        """Refuse a cycle without a rise or a fall."""
        _check_peak(self)
        positive_int("steps", self.steps)
        if not 0 < self.rise < 1 or self.rise * self.steps <= 1:
            raise ConfigError(
                f"OneCycle(rise={brief(self.rise)}, steps={self.steps}) leaves no step to rise or "
                "none to fall\nGive a share between 0 and 1, and enough steps, for example 0.3."
            )

    def __call__(self, step: int) -> float:
        """Return the value of a step."""
        first, last = self.peak / self.div, self.peak / self.div / self.final_div
        top, end = self.rise * self.steps - 1, self.steps - 1
        if step <= top:
            return _cosine(first, self.peak, step / top)
        return _cosine(self.peak, last, min((step - top) / (end - top), 1.0))


def is_pure(schedule: object) -> bool:
    """Return whether values depend on the step alone, so that they may be asked for ahead."""
    if type(schedule) is Warmup:
        return schedule.then is None or is_pure(schedule.then)
    return type(schedule) in (Cosine, OneCycle, WarmupStableDecay)


def _rising(peak: float, step: int, steps: int) -> float:
    return peak * (step + 1) / (steps + 1)


def _cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * done))


def _check_peak(schedule: Any) -> None:
    peak: Any = schedule.peak
    is_number = isinstance(peak, int | float) and not isinstance(peak, bool)
    if not (is_number and 0 < peak < math.inf):
        raise ConfigError(
            f"{type(schedule).__name__}(peak={brief(peak)}) is no number above 0\n"
            "Give the highest value of the schedule, for example 1e-3."
        )


def _check_parts(schedule: Any, **parts: int) -> None:
    """Check that the parts of a schedule are whole and leave a step between them."""
    steps = positive_int("steps", schedule.steps)
    whole = all(isinstance(n, int) and not isinstance(n, bool) for n in parts.values())  # pyright: ignore[reportUnnecessaryIsInstance]
    if not whole or min(parts.values()) < 0 or sum(parts.values()) >= steps:
        raise ConfigError(
            f"{type(schedule).__name__} has parts that are no whole numbers, or too long together\n"
            f"Got: {schedule!r}.\nGive whole numbers of steps that add up to less than steps=."
        )
