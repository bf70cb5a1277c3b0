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

__all__ = ["Rate", "optimizers_of", "rates_of"]

Rate = Callable[[], float | Tensor]


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

    A Keras schedule is left out: asking it costs as much as a step of a small model. The number it
    has come to is logged once per pass.
    """
    rates: dict[str, Rate] = {}
    for turn, optimizer in optimizers_of(loop).items():
        rate = _rate(optimizer)
        if rate is not None:
            rates[f"lr_{turn}" if turn else "lr"] = rate
    return rates


def _rate(optimizer: Any) -> Rate | None:
    if isinstance(optimizer, Optimizer):
        groups: list[dict[str, Any]] = optimizer.param_groups
        return lambda: groups[0]["lr"]
    while hasattr(optimizer, "inner_optimizer"):  # LossScaleOptimizer wraps another one
        optimizer = optimizer.inner_optimizer
    variable = getattr(optimizer, "_learning_rate", None)
    if not is_keras(variable, "Variable"):
        return None
    tensor = cast(Any, variable).value.detach()
    if tensor.device.type == "cpu" and tensor.dtype in (torch.float32, torch.float64):
        return tensor.numpy().item  # sync: never, it is on the host; no operation of torch
    return lambda: tensor
