"""What can run in half precision, and how it must be told."""

from typing import TYPE_CHECKING, Any

import torch

from fitkit.errors import ConfigError
from fitkit.interop import is_keras, modules_of
from fitkit.loop.applied import turn_of
from fitkit.loop.callback import Callback, filled_by
from fitkit.loop.events import Event
from fitkit.tune.optimizers import grads_scaled_by, optimizers_beside

if TYPE_CHECKING:
    from fitkit.loop.fit_loop import FitLoop

__all__ = ["check_device", "check_keras", "check_scale", "check_weights"]

_POLICIES = {"bf16": "mixed_bfloat16", "fp16": "mixed_float16"}


def check_device(dtype: str, device: torch.device) -> None:
    """Raise ConfigError if `device` does not compute in `dtype`."""
    if dtype == "fp16" and device.type == "cpu":
        raise ConfigError(
            'MixedPrecision("fp16") on the device cpu: float16 is made for accelerators\n'
            'Use MixedPrecision("bf16") on a CPU; it needs no loss scale either.'
        )
    available = torch.amp.is_autocast_available(device.type)
    if device.type == "cuda" and dtype == "bf16":
        available = torch.cuda.is_bf16_supported(including_emulation=False)
    if not available:
        raise ConfigError(
            f'MixedPrecision("{dtype}") on the device {device}, which does not support it\n'
            'Use the other one of "bf16" and "fp16", or leave it out.'
        )


def check_keras(dtype: str, model: Any) -> None:
    """Raise ConfigError if a Keras layer computes otherwise than its policy must say."""
    policy = _POLICIES[dtype]
    if not is_keras(model, "Layer"):
        raise ConfigError(
            f'MixedPrecision("{dtype}"): {type(model).__name__} holds Keras layers, which autocast '
            "would cast twice\n"
            "Make a Keras model of it with a dtype policy, or use layers of torch."
        )
    layers: list[Any] = [layer for layer in modules_of(model) if is_keras(layer, "Layer")]
    names: set[str] = {layer.dtype_policy.name for layer in layers if layer.variables}
    if policy not in names:
        given = ", ".join(sorted(names))
        raise ConfigError(
            f'MixedPrecision("{dtype}") got a Keras model of the policy {given}\n'
            "Keras layers compute in the dtype of their policy, not under autocast.\n"
            f'Call keras.config.set_dtype_policy("{policy}") before the model is made.'
        )


def check_weights(model: Any) -> None:
    """Raise ConfigError if weights are in float16: their updates would vanish."""
    if any(parameter.dtype is torch.float16 for parameter in model.parameters()):
        raise ConfigError(
            'MixedPrecision("fp16") got a model with weights in float16, expected float32\n'
            "Leave out model.half(): the weights stay float32, autocast does the rest."
        )


def check_scale(loop: "FitLoop", callback: Callback) -> None:
    """Raise ConfigError if `callback`, a MixedPrecision("fp16"), is not the only one to scale."""
    own, optimizers = turn_of(loop, callback), optimizers_beside(loop, callback)
    if grads_scaled_by(optimizers) is not None:
        kinds = ", ".join(sorted({type(optimizer).__name__ for optimizer in optimizers}))
        raise ConfigError(
            f'MixedPrecision("fp16") and the Keras optimizer {kinds} both scale the loss\n'
            "Give the optimizer inside of it, without loss_scale_factor, to the loop."
        )
    turns = [turn.name for turn in loop.bus.turns if turn is not None]
    if turns and own is None:
        raise ConfigError(
            f'MixedPrecision("fp16") is beside the turns {", ".join(turns)}; each has its scale\n'
            'Put one into each turn: Turn("d", [..., MixedPrecision("fp16")]).'
        )
    beside = [c for c in loop.callbacks if turn_of(loop, c) in (own, None) and c is not callback]
    known = set(map(id, optimizers))
    for other in beside:
        if Event.APPLY in filled_by(other) and id(getattr(other, "optimizer", None)) not in known:
            name = type(other).__name__
            raise ConfigError(
                f'MixedPrecision("fp16") cannot take back what {name} did: its slots are unknown'
                "\n"
                f"Keep the optimizer in an attribute: {name}.optimizer."
            )
    others: list[Any] = [other for other in beside if type(other) is type(callback)]
    if others:
        raise ConfigError(
            f'MixedPrecision("fp16") and MixedPrecision("{others[0].dtype}") are in one step\n'
            "Keep one of them: a loss has one scale, and a forward pass one precision."
        )
