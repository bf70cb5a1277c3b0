"""A context around the step region of single batches, for those who look on for a few steps."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, final

from fitkit.loop.runner import Runner, nothing_recorded

__all__ = ["StepContext"]


@final
class StepContext:
    """Runs the step region within a context, from the time it is made until `remove`.

    Made at BATCH_BEGIN and removed at BATCH_END, it costs nothing in all other steps. Several of
    them nest; they may be removed in any order.

    Args:
        runner: Runs the step region.
        context: Called in each step (each turn of it).
        eager: Whether only steps that run eagerly are meant. `Record` then chooses and counts as
            ever, and knows nothing of what the context does.
    """

    def __init__(
        self, runner: Runner, context: Callable[[], AbstractContextManager[Any]], *, eager: bool
    ) -> None:
        recorded = runner.report is not nothing_recorded
        self._name = "run_region" if eager and recorded else "run_step"
        self._runner = runner
        self._context = context
        self._was_own = self._name in vars(runner)
        self.inner: Callable[[], None] = getattr(runner, self._name)
        setattr(runner, self._name, self)

    def __call__(self) -> None:
        """Run the step region."""
        with self._context():
            self.inner()

    def remove(self) -> None:
        """Leave the step region as it was."""
        outer, current = None, getattr(self._runner, self._name)
        while isinstance(current, StepContext) and current is not self:
            outer, current = current, current.inner
        if current is not self:
            return  # somebody has replaced everything
        if outer is not None:
            outer.inner, outer._was_own = self.inner, self._was_own
        elif self._was_own:
            setattr(self._runner, self._name, self.inner)
        else:
            delattr(self._runner, self._name)  # the method of the class is back
