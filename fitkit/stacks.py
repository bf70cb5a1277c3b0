"""Standard stacks: the callbacks of a kind of training, in run order."""

from collections.abc import Iterable, Mapping
from typing import Any, cast

from torch import nn
from torch.optim import Optimizer

from fitkit.errors import ConfigError, brief
from fitkit.interop import is_keras
from fitkit.loop.callback import Callback, Stack
from fitkit.passes import Metrics, TrainMode, Validate
from fitkit.step import (
    AddedLosses,
    Backward,
    Forward,
    KerasApply,
    KerasLoss,
    TorchLoss,
    TorchStep,
    ZeroGrad,
)

__all__ = ["supervised"]


def supervised(
    *,
    loss: Any,
    optimizer: Any,
    metrics: Iterable[Any] | Mapping[str, Any] = (),
    validate: int | str = "1 epoch",
) -> Stack:
    """Return the stack of supervised training, for Keras and torch parts in any mix.

    TrainMode, ZeroGrad, Forward, the loss, AddedLosses, Backward, the optimizer, Metrics, Validate.

    Args:
        loss: A Keras loss or its name, a torch loss module, a function of `torch.nn.functional`,
            or `KerasLoss(function)` / `TorchLoss(function)` for a function of your own.
        optimizer: A Keras optimizer or its name, or a torch optimizer.
        metrics: Keras metrics and torchmetrics, a list or a dict by name.
        validate: How often to run the validation loaders, if the loop has any: "1 epoch",
            "500 updates" or 500, "10 minutes".

    Raises:
        ConfigError: If it cannot be told whether a function takes (targets, outputs) as in Keras
            or (outputs, targets) as in torch, or if Keras does not know a name.
        TypeError: If something is of the wrong kind.

    Example:
        ```python
        import keras
        from fitkit import supervised

        stack = supervised(
            loss=keras.losses.CategoricalCrossentropy(from_logits=True),
            optimizer=keras.optimizers.Adam(1e-3),
            metrics=[keras.metrics.CategoricalAccuracy()],
        )
        ```
    """
    return Stack(
        (
            TrainMode(),
            ZeroGrad(),
            Forward(),
            _loss(loss),
            AddedLosses(),
            Backward(),
            _apply(optimizer),
            Metrics(metrics),
            Validate(validate),
        )
    )


def _loss(loss: Any) -> Callback:
    if isinstance(loss, KerasLoss | TorchLoss):
        return loss
    module = getattr(loss, "__module__", None) or ""
    if isinstance(loss, str) or is_keras(loss, "losses.Loss") or module.startswith("keras."):
        return KerasLoss(loss)
    if isinstance(loss, nn.Module | type) or module.startswith("torch."):
        return TorchLoss(loss)
    if callable(loss):
        raise ConfigError(
            f"loss={brief(loss)}: is it f(targets, outputs) as in Keras or f(outputs, targets)?\n"
            "Say so: loss=KerasLoss(f) calls f(targets, outputs), loss=TorchLoss(f) the other way."
        )
    raise TypeError(
        f"loss={brief(loss)} is a {type(loss).__name__}, expected a loss\n"
        "Pass a Keras loss or its name, a torch loss module, or KerasLoss(f) / TorchLoss(f)."
    )


def _apply(optimizer: Any) -> Callback:
    if isinstance(optimizer, KerasApply | TorchStep):
        return optimizer
    kind: Any = optimizer if isinstance(optimizer, type) else type(optimizer)
    is_torch = issubclass(kind, Optimizer)
    return TorchStep(cast(Any, optimizer)) if is_torch else KerasApply(optimizer)
