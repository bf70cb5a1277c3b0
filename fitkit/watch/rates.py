"""The learning rates of a loop, to be drawn over its updates."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from fitkit.interop import is_keras
from fitkit.loop.callback import filled_by
from fitkit.loop.events import Event

if TYPE_CHECKING:
    from fitkit.loop.fit_loop import FitLoop

__all__ = ["Rate", "kept", "optimizers_of", "rates_of"]

Rate = Callable[[], float | Tensor]
"""Returns the rate of now; nobody writes to what it returns."""


def optimizers_of(loop: "FitLoop") -> dict[str, Any]:
    """Return what the callbacks of a loop apply, by turn; "" for one outside of turns."""
    turns = {c: t.name for t in loop.bus.turns if t is not None for c in t.callbacks}
    found: dict[str, Any] = {}
    for callback in loop.callbacks:
        if Event.APPLY not in filled_by(callback):
            continue
        optimizer = getattr(callback, "optimizer", None)
        if optimizer is None and is_keras(loop.model, "Model"):
            optimizer = loop.model.optimizer
        if isinstance(optimizer, Optimizer) or is_keras(optimizer, "optimizers.Optimizer"):
            found[turns.get(callback, "")] = optimizer
    return found


def rates_of(loop: "FitLoop") -> dict[str, Rate]:
    """Return what reads the rate of each optimizer, by name: "lr", or "lr_<turn>". Syncs: never.

    A Keras schedule is left out: it computes its number by operations of Keras. What it has come to
    is logged once per pass.
    """
    rates: dict[str, Rate] = {}
    for turn, optimizer in optimizers_of(loop).items():
        rate = _rate(optimizer)
        if rate is not None:
            rates[f"lr_{turn}" if turn else "lr"] = rate
    return rates


def kept(read: Rate) -> Rate:
    """Return what reads a rate; of a tensor on the host its number, of another one a copy."""

    def rate() -> float | Tensor:
        now = read()
        if type(now) is float or not isinstance(now, Tensor):
            return now
        # Each time: what `.data` or a graph of CUDA writes does not count as a write.
        return now.item() if now.is_cpu else now.detach().clone()  # sync: none, it is on the host

    return rate


def _rate(optimizer: Any) -> Rate | None:
    if isinstance(optimizer, Optimizer):
        return kept(lambda: optimizer.param_groups[0]["lr"])  # loading binds others
    while hasattr(optimizer, "inner_optimizer"):  # LossScaleOptimizer wraps another one
        optimizer = optimizer.inner_optimizer
    variable = getattr(optimizer, "_learning_rate", None)
    if not is_keras(variable, "Variable"):
        return None
    tensor = cast(Any, variable).value.detach()
    if tensor.device.type == "cpu" and tensor.dtype in (torch.float32, torch.float64):
        # It is on the host: a view of its memory needs no operation, and less time than torch.
        memory = memoryview(tensor.numpy())  # sync: never
        return lambda: memory[()]
    return kept(lambda: tensor)
