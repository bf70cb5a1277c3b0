"""LOSS_READY: what Keras layers add to the loss."""

from typing import final

import torch

from fitkit.interop import is_keras
from fitkit.loop.callback import Callback
from fitkit.loop.events import Phase
from fitkit.loop.state import State

__all__ = ["AddedLosses"]


@final
class AddedLosses(Callback):
    """Add `add_loss` values and regularizers of a Keras model to the loss, one after the other.

    `model.losses` is read exactly once per step, because each read computes the regularizers
    anew. For a torch module nothing happens.

    Reads:  state.model, state.loss.
    Writes: state.loss, shape (); state.losses["added"], the sum of what was added, if anything.
    Logs:   nothing.
    Syncs:  never.
    Raises: nothing.

    Example:
        ```python
        import keras
        from fitkit import FitLoop, TensorLoader, supervised

        layer = keras.layers.Dense(1, kernel_regularizer="l2")
        model = keras.Sequential([keras.Input((4,)), layer])
        x, y = keras.random.normal((64, 4)), keras.random.normal((64, 1))
        loop = FitLoop(model, TensorLoader(x, y))
        loop.attach(supervised(loss="mse", optimizer="sgd"))  # AddedLosses is part of the stack
        loop.fit(epochs=1)
        ```
    """

    phases = frozenset({Phase.TRAIN, Phase.VAL})

    def __init__(self) -> None:
        self._is_keras = False

    def on_pass_begin(self, state: State) -> None:
        """Ask once per pass whether the model can have added losses."""
        self._is_keras = is_keras(state.model, "Layer")

    def on_loss_ready(self, state: State) -> None:
        """Add the losses of the forward pass that just ran."""
        added = state.model.losses if self._is_keras else ()
        if not added:
            return
        with torch.no_grad():  # to be looked at only; its graph would cost as much as the sum
            state.losses["added"] = torch.stack(list(added)).sum()
        for loss in added:  # in this order, as Keras does: a sum of floats depends on it
            state.loss = state.loss + loss
