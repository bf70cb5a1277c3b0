"""The learning rates of a loop, to be drawn over its updates."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor
from torch.optim import Optimizer

from fitkit.interop import innermost, is_keras
from fitkit.loop.applied import applied_optimizers

if TYPE_CHECKING:
    from fitkit.loop.fit_loop import FitLoop

__all__ = ["Rate", "Rates", "kept", "rates_of"]

Rate = Callable[[], float | Tensor]
"""Returns the rate of now."""


class Rates(NamedTuple):
    """What reads learning rates, by name. Reading syncs never.

    Attributes:
        of_step: Those in tensors on the device that the step reads itself, shape (): of Keras.
        of_host: The others: numbers, or tensors that may be replaced.
    """

    of_step: dict[str, Callable[[], Tensor]]
    of_host: dict[str, Rate]


def rates_of(loop: "FitLoop") -> Rates:
    """Return what reads the rate of each optimizer, by name: "lr", or "lr_<turn>".

    A Keras schedule is left out: it computes its number by operations of Keras. What it has come to
    is logged once per pass.
    """
    rates = Rates({}, {})
    for turn, optimizer in applied_optimizers(loop).items():
        name = f"lr_{turn}" if turn else "lr"
        if isinstance(optimizer, Optimizer):
            rates.of_host[name] = partial(_of_first_group, optimizer)
            continue
        optimizer = innermost(optimizer)
        if is_keras(variable := getattr(optimizer, "_learning_rate", None), "Variable"):
            read: Callable[[], Tensor] = partial(getattr, variable, "value")
            (rates.of_step if read().device == loop.device else rates.of_host)[name] = read
    return rates


def _of_first_group(optimizer: Optimizer) -> float | Tensor:
    return optimizer.param_groups[0]["lr"]  # loading binds other groups


def kept(read: Rate) -> Rate:
    """Return what reads a rate for good; of a tensor on the host its number, else a copy."""

    def rate() -> float | Tensor:
        now = read()
        if type(now) is float or not isinstance(now, Tensor):
            return now
        # Each time: what `.data` or a graph of CUDA writes does not count as a write.
        return now.item() if now.is_cpu else now.detach().clone()  # sync: none, it is on the host

    return rate
