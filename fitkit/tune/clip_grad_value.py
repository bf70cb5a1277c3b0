"""Gradients whose elements stay within a limit."""

from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor

from fitkit.loop.callback import TRAIN_ONLY, Callback
from fitkit.loop.state import State
from fitkit.tune.clip_grad_norm import CLIPPING, positive
from fitkit.tune.optimizers import grads_scaled_by, optimizers_beside, refuse_doubled
from fitkit.tune.tensor_lists import clamp_

if TYPE_CHECKING:
    from fitkit.loop.fit_loop import FitLoop

__all__ = ["ClipGradValue"]


@final
class ClipGradValue(Callback):
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

    phases = TRAIN_ONLY
    after = ("Accumulate", "MixedPrecision")

    def __init__(self, max_value: float) -> None:
        self.max_value = positive("max_value", max_value)
        self._parameters: list[Tensor] = []
        self._optimizers: list[Any] = []

    def attach(self, loop: "FitLoop") -> None:
        """Keep the loop: its optimizers are looked at."""
        self._loop = loop

    def on_fit_begin(self, state: State) -> None:
        """Check that nobody else clips."""
        refuse_doubled(self._loop, self, CLIPPING, does="clip gradients")

    def on_pass_begin(self, state: State) -> None:
        """List the weights and the optimizers."""
        self._parameters = list(state.model.parameters())
        self._optimizers = optimizers_beside(self._loop, self)

    def on_grads_ready(self, state: State) -> None:
        """Clip."""
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        scale = grads_scaled_by(self._optimizers)
        if scale is None:
            clamp_(gradients, self.max_value)
            return
        for gradient in gradients:
            limit = torch.as_tensor(scale, device=gradient.device) * self.max_value
            gradient.copy_(torch.where(gradient.isinf(), gradient, gradient.clamp(-limit, limit)))
