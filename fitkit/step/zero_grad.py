"""ZERO_GRAD."""

from typing import final

from torch import nn

from fitkit.loop.callback import TRAIN_ONLY, Callback
from fitkit.loop.state import State

__all__ = ["ZeroGrad"]


@final
class ZeroGrad(Callback):
    """Fill ZERO_GRAD: drop the gradient of every parameter of the model.

    Gradients are set to None, not to zero: a weight the loss does not depend on then has no
    gradient, and the optimizer leaves it alone. Because this opens an update and does not end it,
    gradients can still be read at BATCH_END.

    Reads:  state.model.
    Writes: the `.grad` of its parameters.
    Logs:   nothing.
    Syncs:  never.
    Raises: nothing.

    Example:
        ```python
        import torch
        from fitkit import Backward, FitLoop, Forward, TensorLoader, TorchLoss, TorchStep, ZeroGrad

        model = torch.nn.Linear(4, 1)
        loop = FitLoop(model, TensorLoader(torch.randn(64, 4), torch.randn(64, 1)))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        loop.attach(ZeroGrad(), Forward(), TorchLoss(torch.nn.MSELoss()), Backward())
        loop.attach(TorchStep(optimizer))
        loop.fit(epochs=1)
        ```
    """

    phases = TRAIN_ONLY

    def __init__(self) -> None:
        self._parameters: list[nn.Parameter] = []

    def on_pass_begin(self, state: State) -> None:
        """List the parameters: a step does not walk all layers."""
        self._parameters = list(state.model.parameters())

    def on_zero_grad(self, state: State) -> None:
        """Drop all gradients."""
        for parameter in self._parameters:
            parameter.grad = None
