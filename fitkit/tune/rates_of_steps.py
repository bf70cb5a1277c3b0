"""What the parameter groups of an optimizer get in each step."""

from collections.abc import Callable, Sequence
from typing import final

__all__ = ["RatesOfSteps"]

_NUM_AHEAD = 64  # steps


@final
class RatesOfSteps:
    """The values of a schedule, one per parameter group, computed ahead where that is allowed.

    Between two steps Python is slow, because its code and data are in no cache any more: values
    that are computed many at a time cost a tenth each.

    Args:
        ratios: What each group gets of it.
        ahead: Whether the values depend on the step alone.
    """

    def __init__(self, ratios: Sequence[float], *, ahead: bool) -> None:
        self._ratios = ratios
        self._count = _NUM_AHEAD if ahead else 1
        self._first = 0
        self._known: list[list[float]] = []

    def of(self, step: int, schedule: Callable[[int], float]) -> list[float]:
        """Return what each group gets in a step."""
        place = step - self._first
        if not 0 <= place < len(self._known):
            values = map(schedule, range(step, step + self._count))
            self._known = [[value * ratio for ratio in self._ratios] for value in values]
            self._first, place = step, 0
        return self._known[place]
