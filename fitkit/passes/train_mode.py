"""The train or eval mode of the model's modules."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, final

from torch import nn

from fitkit.interop import modules_of
from fitkit.loop.callback import Callback
from fitkit.loop.events import Phase
from fitkit.loop.state import State
from fitkit.passes.model_watch import ModelWatch

if TYPE_CHECKING:
    from fitkit.loop.fit_loop import FitLoop

__all__ = ["TrainMode"]


@final
class TrainMode(Callback):
    """Put the model into train mode for a training pass and into eval mode for any other.

    Afterwards every module has the mode it had before, also when the pass raised. Keras layers
    ignore the mode, `Forward` tells them; torch modules inside a Keras model obey it.

    Warns once if a callback changes a mode or a `requires_grad` in the middle of a training pass;
    in `on_pass_begin` it may, and after that it counts as meant.

    Reads:  state.model, state.phase.
    Writes: `module.training` of all modules.
    Logs:   nothing.
    Syncs:  never.
    Raises: nothing.

    Example:
        ```python
        import torch
        from fitkit import FitLoop, Forward, TensorLoader, TrainMode

        model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.5))
        loop = FitLoop(model, callbacks=[TrainMode(), Forward()])
        batches = TensorLoader(torch.ones(8, 4))
        assert (loop.predict(batches) == loop.predict(batches)).all()  # no dropout
        assert model.training
        ```
    """

    only_watches = True

    def __init__(self) -> None:
        self._loop: FitLoop | None = None
        self._watch: ModelWatch | None = None

    def attach(self, loop: "FitLoop") -> None:
        """Keep the loop, to name the callback that changed a mode."""
        self._loop = loop

    def on_pass_begin(self, state: State) -> None:
        """Set the mode of this pass; it is put back when the pass ends."""
        state.exits.callback(_restore, [(m, m.training) for m in modules_of(state.model)])
        state.model.train(state.phase is Phase.TRAIN)

    def on_batch_begin(self, state: State) -> None:
        """Look now and then whether somebody changed the modes or what is trainable."""
        if state.phase is not Phase.TRAIN or state.batch_index & (state.batch_index - 1):
            return  # after 1, 2, 4, 8, ... batches
        if state.batch_index == 0:
            self._watch = self._watch or ModelWatch(state.model)
            self._watch.remember()
        else:
            self._compare()

    def on_pass_end(self, state: State) -> None:
        """Look once more."""
        if state.phase is Phase.TRAIN and hasattr(state, "batch_index"):
            self._compare()

    def accept_flags(self) -> None:
        """Take the flags as they are for what is meant; a callback that has set them says so."""
        if self._watch is not None:
            self._watch.remember()

    def _compare(self) -> None:
        if self._watch is not None and self._loop is not None:
            others = [callback for callback in self._loop.callbacks if callback is not self]
            self._watch.warn_of_changes(others)


def _restore(modes: Iterable[tuple[nn.Module, bool]]) -> None:
    for module, training in modes:
        module.training = training
