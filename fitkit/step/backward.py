"""BACKWARD."""

from typing import final

import torch

from fitkit.loop.callback import TRAIN_ONLY, Callback
from fitkit.loop.state import State

__all__ = ["Backward"]


@final
class Backward(Callback):
    """Fill BACKWARD: add the gradient of the loss to every trainable weight.

    Reads:  state.loss, shape (), attached to its graph; state.grad_scale, shape () or None.
    Writes: the `.grad` of the weights: the gradient of grad_scale * loss, added to what is there.
    Logs:   nothing.
    Syncs:  never.
    Raises: nothing of its own.

    Example:
        ```python
        from fitkit import Backward

        backward = Backward()
        ```
    """

    phases = TRAIN_ONLY

    def on_backward(self, state: State) -> None:
        """Run the backward pass."""
        torch.autograd.backward(state.loss, state.grad_scale)
