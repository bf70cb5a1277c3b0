"""BACKWARD."""

from typing import final

import torch
from torch import nn

from fitkit.loop.callback import TRAIN_ONLY, Callback
from fitkit.loop.state import State

__all__ = ["Backward"]


@final
class Backward(Callback):
    """Fill BACKWARD: add the gradient of the loss to every trainable weight.

    Args:
        model: The part of the loop's model whose weights get gradients, for example the generator
            in the generator's `Turn`; nothing is computed for the others. Default is all of it.

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

    def __init__(self, model: nn.Module | None = None) -> None:
        self._parameters = None if model is None else list(model.parameters())

    def on_backward(self, state: State) -> None:
        """Run the backward pass."""
        wanted = self._parameters and [p for p in self._parameters if p.requires_grad]
        torch.autograd.backward(state.loss, state.grad_scale, inputs=wanted)
