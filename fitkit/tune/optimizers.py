"""The optimizers beside a callback, and what they already do themselves."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from torch import Tensor

from fitkit.errors import ConfigError
from fitkit.interop import is_keras
from fitkit.loop.applied import applied_optimizers, turn_of
from fitkit.loop.callback import Callback

if TYPE_CHECKING:
    from fitkit.loop.fit_loop import FitLoop

__all__ = ["grads_scaled_by", "optimizers_beside", "refuse_doubled"]


def optimizers_beside(loop: "FitLoop", callback: Callback) -> list[Any]:
    """Return the optimizers whose gradients `callback` sees: all but those of other turns."""
    own = turn_of(loop, callback)
    held = applied_optimizers(loop).items()
    return [optimizer for turn, optimizer in held if own is None or turn in (own, None)]


def refuse_doubled(
    loop: "FitLoop", callback: Callback, names: tuple[str, ...], *, does: str
) -> None:
    """Refuse what a Keras optimizer does already.

    Args:
        loop: Whose callbacks hold the optimizers.
        callback: What would do it a second time.
        names: Arguments of Keras optimizers.
        does: What both do, for the message.

    Raises:
        ConfigError: Naming the callback, the optimizer and the argument.
    """
    for outer in optimizers_beside(loop, callback):
        for optimizer in _with_inner(outer):
            for name in names:
                value = getattr(optimizer, name, None)
                if value is not None and value is not False:
                    kind = f"{type(optimizer).__name__}({name}={value})"
                    raise ConfigError(
                        f"{type(callback).__name__} and the Keras optimizer {kind} both {does}\n"
                        f"Leave {name} out of the optimizer, or {type(callback).__name__} out of "
                        "the loop."
                    )


def grads_scaled_by(optimizers: list[Any]) -> float | Tensor | None:
    """Return what a Keras optimizer will divide the gradients by at APPLY. Syncs: never.

    Returns:
        The dynamic scale, shape (), on the device; the fixed factor; None if there is none.
    """
    for optimizer in optimizers:
        if is_keras(optimizer, "optimizers.LossScaleOptimizer"):
            built = bool(optimizer.built)  # before that, Keras scales by the initial number
            return optimizer.dynamic_scale.value if built else optimizer.initial_scale
        if is_keras(optimizer, "optimizers.Optimizer") and optimizer.loss_scale_factor is not None:
            return optimizer.loss_scale_factor
    return None


def _with_inner(optimizer: Any) -> Iterator[Any]:
    """Yield a Keras optimizer and those inside of it; nothing for any other."""
    if not is_keras(optimizer, "optimizers.Optimizer"):
        return
    yield optimizer
    for inner in (
        getattr(optimizer, "inner_optimizer", None),
        *getattr(optimizer, "optimizers", ()),
    ):
        yield from _with_inner(inner)
