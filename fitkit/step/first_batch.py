"""What the losses share: values are checked on the first batch of a phase, once per run."""

from collections.abc import Hashable

from fitkit.loop.callback import Callback
from fitkit.loop.events import Phase
from fitkit.loop.state import State

__all__ = ["FirstBatch"]


class FirstBatch(Callback):
    """A callback that checks the first batch of each phase in a run: `check`, by `check_first`.

    A step that checks is another one for `Record`, which then runs it eagerly: once per pass would
    cost every epoch an eager step.
    """

    phases = frozenset({Phase.TRAIN, Phase.VAL})

    def __init__(self) -> None:
        self._done: frozenset[Phase] = frozenset()
        # The steps of phases that never enter here are the same before and after the checks.
        self._checked = True

    @property
    def step_key(self) -> Hashable:
        """Whether the checks are done: a step that checks is another one."""
        return self._checked

    def on_open(self, state: State) -> None:
        """Check anew in every run: its loaders may be others."""
        self._done = frozenset()

    def on_pass_begin(self, state: State) -> None:
        """Check the first batch of a phase."""
        self._checked = state.phase in self._done

    def check_first(self, state: State) -> None:
        """Check the batch if it is the first one."""
        if not self._checked:
            self.check(state)
            self._done |= {state.phase}
            self._checked = True

    def check(self, state: State) -> None:
        """Raise what is wrong with the batch; outputs are there, the loss is not."""
        raise NotImplementedError
