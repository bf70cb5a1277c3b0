"""Gradients no longer than a limit."""

from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Tensor

from fitkit.interop import is_keras
from fitkit.loop.state import State
from fitkit.tune.clipping import Clipping, positive
from fitkit.tune.optimizers import optimizers_beside
from fitkit.tune.tensor_lists import mul_, norm

__all__ = ["ClipGradNorm"]


@final
class ClipGradNorm(Clipping):
    """Scale all gradients down together where their norm is above a limit; log the norm.

    As `torch.nn.utils.clip_grad_norm_`: the norm is that of all gradients as one vector (with
    `Turn`s, of those of the turn), and they are multiplied by min(1, max_norm / (norm + 1e-6)).
    Gradients that a Keras optimizer will divide by a loss scale at APPLY count as divided already.

    Args:
        max_norm: The limit.
        norm_type: The p of the p-norm; inf is the largest magnitude.

    Reads:  the gradients; the loss scale of a Keras optimizer, shape ().
    Writes: the gradients, in place.
    Logs:   grad_norm, the norm before clipping, as mean over the pass; with turns <turn>_grad_norm.
        Where dynamic loss scaling skips updates, of the finite norms.
    Syncs:  never.
    Raises: ConfigError if a number is not positive, or if another one, or a Keras optimizer, clips.

    Example:
        ```python
        import torch
        from fitkit import ClipGradNorm, FitLoop, TensorLoader, supervised

        model = torch.nn.Linear(4, 1)
        loop = FitLoop(model, TensorLoader(torch.randn(64, 4), torch.randn(64, 1)))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        loop.attach(supervised(loss=torch.nn.MSELoss(), optimizer=optimizer), ClipGradNorm(1.0))
        assert "grad_norm" in loop.fit(epochs=1)
        ```
    """

    instead_of_two = "The smaller limit is enough; in two turns there may be one each."
    one_per_turn = True

    def __init__(self, max_norm: float, *, norm_type: float = 2.0) -> None:
        super().__init__()
        self.max_norm = positive("max_norm", max_norm)
        self.norm_type = positive("norm_type", norm_type)
        self._skips = False  # whether updates by infinite gradients are skipped
        self._finite: dict[str, Tensor] = {}  # sum and number of the finite norms of a pass

    def on_fit_begin(self, state: State) -> None:
        """Check that nobody else clips; see who skips updates."""
        super().on_fit_begin(state)
        optimizers = optimizers_beside(self._loop, self)
        self._skips = any(getattr(c, "skips_updates", False) for c in self._loop.callbacks) or any(
            is_keras(optimizer, "optimizers.LossScaleOptimizer") for optimizer in optimizers
        )

    def on_pass_begin(self, state: State) -> None:
        """Begin a mean; list the weights and the optimizers."""
        super().on_pass_begin(state)
        for sums in self._finite.values():
            sums.zero_()

    def on_grads_ready(self, state: State) -> None:
        """Clip."""
        gradients, scale = self.gradients()
        length = norm(gradients, self.norm_type)
        if scale is not None:
            length = length / scale
        mul_(gradients, (self.max_norm / (length + 1e-6)).clamp(max=1.0))
        self._log(state, length)

    def _log(self, state: State, length: Tensor) -> None:
        name = f"{state.turn}_grad_norm" if state.turn else "grad_norm"
        if not self._skips:
            state.log(name, length)
            return
        if name not in self._finite:
            self._finite[name] = torch.zeros(2, device=length.device)
        finite = length.isfinite()
        sums = self._finite[name].add_(torch.stack([torch.where(finite, length, 0.0), finite]))
        state.log(name, sums[0] / sums[1], reduce="last")
        state.step_values[name] = length

    def state_dict(self) -> dict[str, Any]:
        """Return what a mean of finite norms is made of."""
        return {name: sums.clone() for name, sums in self._finite.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned, in place where it is in use."""
        for name, sums in state.items():
            if name in self._finite:
                self._finite[name].copy_(sums)
            else:
                self._finite[name] = sums.to(self._loop.device).clone()
