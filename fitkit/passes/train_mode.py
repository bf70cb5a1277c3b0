"""The train or eval mode of the model's modules."""

from typing import final

from torch import nn

from fitkit.loop.callback import Callback
from fitkit.loop.events import Phase
from fitkit.loop.state import State

__all__ = ["TrainMode"]


@final
class TrainMode(Callback):
    """Put the model into train mode for a training pass and into eval mode for any other.

    Afterwards every module has the mode it had before, also when the pass raised. Keras layers
    ignore the mode, `Forward` tells them; torch modules inside a Keras model obey it.

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

    def __init__(self) -> None:
        self._modes: list[list[tuple[nn.Module, bool]]] = []

    def on_pass_begin(self, state: State) -> None:
        """Set the mode of this pass."""
        self._modes.append([(module, module.training) for module in state.model.modules()])
        state.model.train(state.phase is Phase.TRAIN)

    def on_pass_end(self, state: State) -> None:
        """Restore the mode from before the pass."""
        for module, training in self._modes.pop():
            module.training = training

    def on_close(self, state: State) -> None:
        """Restore the modes of passes that were left by an error."""
        while self._modes:
            self.on_pass_end(state)
