"""BACKWARD."""

from typing import final

import torch
from torch import nn

from fitkit.errors import ConfigError
from fitkit.loop.callback import TRAIN_ONLY, Callback
from fitkit.loop.state import State
from fitkit.step.loss_checks import check_loss

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
    Raises: ConfigError if there is no loss; DataError if it has no gradient, or another shape.

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
        try:
            torch.autograd.backward(state.loss, state.grad_scale, inputs=wanted)
        except (AttributeError, RuntimeError, TypeError):
            _check_loss(state)
            raise


def _check_loss(state: State) -> None:
    """Raise an error if that of the backward pass comes from what LOSS was filled with."""
    loss = getattr(state, "loss", None)
    if loss is None:
        raise ConfigError(
            f"LOSS was filled, and state.loss is not set, at {state.place()}\n"
            "Set it in on_loss: state.loss = ...; what a hook returns is not used."
        )
    check_loss(loss, state)
