"""Whether the first batch of a phase was checked in this run."""

from fitkit.loop.events import Phase

__all__ = ["FirstBatch"]


class FirstBatch:
    """Checks that read values are made once per run and phase, on its first batch.

    A step that checks is another one for `Record`, which then runs it eagerly: once per pass would
    cost every epoch an eager step.

    Attributes:
        checked: Whether the checks of the current phase are done.
    """

    def __init__(self) -> None:
        self._phases: frozenset[Phase] = frozenset()
        # The steps of phases that never enter here are the same before and after the checks.
        self.checked = True

    def open(self) -> None:
        """Begin a run: its loaders may be others."""
        self._phases = frozenset()

    def enter(self, phase: Phase) -> None:
        """Begin a pass."""
        self.checked = phase in self._phases

    def done(self, phase: Phase) -> None:
        """Note that the checks were passed."""
        self._phases |= {phase}
        self.checked = True
