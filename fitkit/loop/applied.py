"""Which optimizer the callbacks of a loop apply, and in which turn."""

from typing import TYPE_CHECKING, Any

from torch.optim import Optimizer

from fitkit.interop import is_keras
from fitkit.loop.callback import Callback, filled_by
from fitkit.loop.events import Event

if TYPE_CHECKING:
    from fitkit.loop.fit_loop import FitLoop

__all__ = ["applied_optimizers", "turn_of"]


def applied_optimizers(loop: "FitLoop") -> dict[str | None, Any]:
    """Return the optimizers that are applied, by turn; None is outside of turns.

    There is one each: a second one is refused before the first batch. Two turns may share one.
    """
    found: dict[str | None, Any] = {}
    for callback in loop.callbacks:
        if Event.APPLY not in filled_by(callback):
            continue
        optimizer = getattr(callback, "optimizer", None)
        if optimizer is None and is_keras(loop.model, "Model"):
            optimizer = loop.model.optimizer
        if isinstance(optimizer, Optimizer) or is_keras(optimizer, "optimizers.Optimizer"):
            found[turn_of(loop, callback)] = optimizer
    return found


def turn_of(loop: "FitLoop", callback: Callback) -> str | None:
    """Return the name of the turn that `callback` is in, if it is in one."""
    named = (turn for turn in loop.bus.turns if turn is not None and callback in turn.callbacks)
    return next((turn.name for turn in named), None)
