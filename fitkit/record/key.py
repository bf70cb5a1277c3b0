"""What a recorded program depends on besides the values of tensors: equal keys, equal programs."""

import sys
from collections.abc import Hashable
from itertools import chain
from typing import Any

import torch

from fitkit.loop.state import State
from fitkit.record.optimizers import Optimizers
from fitkit.record.python_state import PythonState
from fitkit.record.region import StepInputs

__all__ = ["kind_of", "program_key", "step_keys"]

_MODULES: Any = torch.nn.modules.module
_HOOKS = [  # dicts of hooks that hold for all modules; torch edits them in place
    getattr(_MODULES, f"_global_{kind}_hooks")
    for kind in ("forward", "forward_pre", "backward", "backward_pre")
]


def kind_of(state: State, inputs: StepInputs) -> tuple[Hashable, ...]:
    """Return the part of the key that differs from step to step of a pass."""
    return (state.phase, state.turn, state.opens_update, state.closes_update, inputs.key)


def step_keys(python: PythonState) -> tuple[Hashable, ...]:
    """Return what callbacks say their step depends on."""
    return tuple([callback.step_key for callback in python.keyed])


def program_key(
    state: State,
    inputs: StepInputs,
    python: PythonState,
    optimizers: Optimizers,
    update: Hashable,
) -> tuple[Hashable, ...]:
    """Return the key of the current step. Computed at every step.

    The version of the attributes comes first.

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
        version,
        *kind_of(state, inputs),
        update,
        optimizers.slots(),
        tuple([_trained(parameter) for parameter in python.parameters]),
        step_keys(python),
        _settings(state.device.type),
        state.needs,
        (*state.rates,),
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
        torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device),
        torch.get_default_dtype(),
        torch.get_float32_matmul_precision(),
        tuple(chain.from_iterable(_HOOKS)),
        keras and (keras.config.epsilon(), keras.config.floatx()),
    )
