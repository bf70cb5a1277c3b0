"""What a recorded program depends on besides the values of tensors: equal keys, equal programs."""

import sys
from collections.abc import Hashable
from typing import Any

import torch

from fitkit.loop.state import State
from fitkit.record.optimizers import Optimizers
from fitkit.record.python_state import PythonState
from fitkit.record.region import StepInputs

__all__ = ["program_key"]


def program_key(
    state: State,
    inputs: StepInputs,
    python: PythonState,
    optimizers: Optimizers,
    update: Hashable,
) -> Hashable:
    """Return the key of the current step. Computed at every step.

    Args:
        state: The state before the step region.
        inputs: The tensors that go in.
        python: The attributes that the step can reach.
        optimizers: Those that the step applies.
        update: Their own key, asked before the step: it counts the updates.
    """
    optimizers.hide()
    try:
        version = python.version()
    finally:
        optimizers.show()
    return (
        state.phase,
        state.turn,
        state.opens_update,
        state.closes_update,
        inputs.key,
        version,
        update,
        optimizers.slots(),
        tuple([_trained(parameter) for parameter in python.parameters]),
        tuple([callback.step_key for callback in python.keyed]),
        _settings(state.device.type),
        state.needs,
        state.log_buffer,
    )


def _trained(parameter: Any) -> Hashable:
    """Return whether a parameter is trained, and which hooks wait for its gradient."""
    hooks, later = parameter._backward_hooks, parameter._post_accumulate_grad_hooks
    return (parameter.requires_grad, *(hooks or ()), *(later or ()))


def _settings(device: str) -> Hashable:
    """Return what holds for the whole process and changes what a step computes."""
    keras = sys.modules.get("keras")
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_autocast_enabled(device),
        torch.get_autocast_dtype(device),
        torch.get_default_dtype(),
        torch.get_float32_matmul_precision(),
        keras and (keras.config.epsilon(), keras.config.floatx()),
    )
