"""What the two ways to clip gradients share."""

from typing import TYPE_CHECKING, Any

from torch import Tensor

from fitkit.errors import ConfigError, brief
from fitkit.loop.callback import TRAIN_ONLY, Callback
from fitkit.loop.state import State
from fitkit.tune.optimizers import grads_scaled_by, optimizers_beside, refuse_doubled

if TYPE_CHECKING:
    from fitkit.loop.fit_loop import FitLoop

__all__ = ["Clipping", "positive"]

_OF_KERAS = ("clipnorm", "clipvalue", "global_clipnorm")


class Clipping(Callback):
    """Something that changes gradients at GRADS_READY, and that a Keras optimizer may do, too."""

    phases = TRAIN_ONLY
    after = ("Accumulate", "MixedPrecision")

    def __init__(self) -> None:
        self._parameters: list[Tensor] = []
        self._optimizers: list[Any] = []

    def attach(self, loop: "FitLoop") -> None:
        """Keep the loop: its optimizers are looked at."""
        self._loop = loop

    def on_fit_begin(self, state: State) -> None:
        """Check that nobody else clips."""
        refuse_doubled(self._loop, self, _OF_KERAS, does="clip gradients")

    def on_pass_begin(self, state: State) -> None:
        """List the weights and the optimizers."""
        self._parameters = list(state.model.parameters())
        self._optimizers = optimizers_beside(self._loop, self)

    def gradients(self) -> tuple[list[Tensor], float | Tensor | None]:
        """Return all gradients, and what a Keras optimizer will divide them by at APPLY."""
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        return gradients, grads_scaled_by(self._optimizers)


def positive(argument: str, value: Any) -> float:
    """Return `value` if it is a number above 0; inf is one.

    Raises:
        ConfigError: If it is anything else: zero, negative, NaN, a bool, a tensor.
    """
    if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
        return value
    raise ConfigError(
        f"{argument}={brief(value)} is a {type(value).__name__}, expected a number above 0\n"
        f"Give a positive number, for example {argument}=1.0."
    )
