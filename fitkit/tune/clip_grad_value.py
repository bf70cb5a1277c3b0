"""Gradients whose elements stay within a limit."""

from typing import final

import torch

from fitkit.loop.state import State
from fitkit.tune.clipping import Clipping, positive
from fitkit.tune.tensor_lists import clamp_

__all__ = ["ClipGradValue"]


@final
class ClipGradValue(Clipping):
    """Clip every element of the gradients to [-max_value, max_value].

    Gradients that a Keras optimizer will divide by a loss scale at APPLY count as divided already;
    infinite ones are left to it then, because it skips an update by them.

    Args:
        max_value: The limit.

    Reads:  the gradients; the loss scale of a Keras optimizer, shape ().
    Writes: the gradients, in place.
    Logs:   nothing.
    Syncs:  never.
    Raises: ConfigError if `max_value` is not positive, or if a Keras optimizer clips, too.

    Example:
        ```python
        import torch
        from fitkit import ClipGradValue, FitLoop, TensorLoader, supervised

        model = torch.nn.Linear(4, 1)
        loop = FitLoop(model, TensorLoader(torch.randn(64, 4), torch.randn(64, 1)))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        loop.attach(supervised(loss=torch.nn.MSELoss(), optimizer=optimizer), ClipGradValue(0.5))
        loop.fit(epochs=1)
        ```
    """

    def __init__(self, max_value: float) -> None:
        super().__init__()
        self.max_value = positive("max_value", max_value)

    def on_grads_ready(self, state: State) -> None:
        """Clip."""
        gradients, scale = self.gradients()
        if scale is None:
            clamp_(gradients, self.max_value)
            return
        for gradient in gradients:
            limit = torch.as_tensor(scale, device=gradient.device) * self.max_value
            gradient.copy_(torch.where(gradient.isinf(), gradient, gradient.clamp(-limit, limit)))
