"""What the parameter groups of an optimizer get in each step."""

from collections.abc import Callable, Sequence
from typing import final

from fitkit.errors import ConfigError

__all__ = ["RatesOfSteps", "ratios_of"]

_NUM_AHEAD = 64  # steps


@final
class RatesOfSteps:
    """The values of a schedule, one per parameter group.

    Args:
        ahead: Whether they depend on the step alone: then they are computed many at a time, and
            most steps only look theirs up.

    Attributes:
        ratios: What each group gets of a value.
    """

    def __init__(self, *, ahead: bool) -> None:
        self.ratios: list[float] = []
        self._count = _NUM_AHEAD if ahead else 1
        self._first = 0
        self._known: list[list[float]] = []

    def scale(self, ratios: Sequence[float]) -> None:
        """Give each group so much of a value from now on."""
        self.ratios, self._known = [*ratios], []

    def of(self, step: int, schedule: Callable[[int], float]) -> list[float]:
        """Return what each group gets in a step."""
        place = step - self._first
        if not 0 <= place < len(self._known):
            values = map(schedule, range(step, step + self._count))
            self._known = [[value * ratio for ratio in self.ratios] for value in values]
            self._first, place = step, 0
        return self._known[place]


def ratios_of(values: Sequence[float]) -> list[float]:
    """Return the numbers of all groups as multiples of the first.

    Raises:
        ConfigError: If the first is 0 and another is not.
    """
    first = values[0]
    if all(value == first for value in values):
        return [1.0] * len(values)
    if not first:
        raise ConfigError(
            f"the parameter groups have {values}; the others keep no ratio to a first one of 0\n"
            "Put another group first, or give every group the same value."
        )
    return [value / first for value in values]
