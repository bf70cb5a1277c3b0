"""LOSS_READY: what Keras layers add to the loss."""

from typing import Any, final

import torch

from fitkit.interop import keras_layers_of
from fitkit.loop.callback import Callback
from fitkit.loop.events import Phase
from fitkit.loop.state import State

__all__ = ["AddedLosses"]


@final
class AddedLosses(Callback):
    """Add `add_loss` values and regularizers of a Keras model to the loss, one after the other.

    `model.losses` is read exactly once per step, because each read computes the regularizers
    anew. Of a torch module the Keras layers it holds are asked.

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
        self._layers: list[Any] = []

    def on_pass_begin(self, state: State) -> None:
        """List once per pass who can have added losses."""
        self._layers = keras_layers_of(state.model)

    def on_loss_ready(self, state: State) -> None:
        """Add the losses of the forward pass that just ran."""
        added = [loss for layer in self._layers for loss in layer.losses]
        if not added:
            return
        with torch.no_grad():  # to be looked at only; its graph would cost as much as the sum
            state.losses["added"] = torch.stack(added).sum()
        for loss in added:  # in this order, as Keras does: a sum of floats depends on it
            state.loss = state.loss + loss
