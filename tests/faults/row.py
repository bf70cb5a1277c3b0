"""A row of the fault matrix: its trials, and a control that fails with the protection off."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import pytest

Trial = Callable[[], None]


@dataclass(frozen=True)
class Row:
    """One kind of fault.

    Attributes:
        name: As in docs/reliability.md, such as "A2".
        what: The fault, in a few words.
        trials: Makes the trials, given a new folder; each raises if the fault did harm.
        control: Runs trials without the protection, given a new folder; returns how many of them
            failed, which must be more than none.
        share: Every so many-th trial runs in the default tests.
        control_is_cheap: Whether the control runs there, too.
    """

    name: str
    what: str
    trials: Callable[[object], Iterable[Trial]]
    control: Callable[[object], int]
    share: int = 10
    control_is_cheap: bool = True


def failing(trials: Iterable[Trial]) -> int:
    """How many of the trials fail; what controls return."""
    count = 0
    for trial in trials:
        try:
            trial()
        except (Exception, pytest.fail.Exception):
            count += 1
    return count
