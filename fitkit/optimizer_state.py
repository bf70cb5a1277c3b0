"""The state of an optimizer, of Keras or of torch, as a checkpoint keeps it."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from fitkit.errors import CheckpointMismatchError
from fitkit.interop import KerasVariable, is_keras

__all__ = ["held_optimizers", "load_optimizer", "load_variables", "optimizer_state", "variables_of"]


def optimizer_state(optimizer: Any) -> dict[str, Any]:
    """Return class and state: moments, step counts, learning rate, hyperparameters of torch."""
    kind = type(optimizer).__name__
    if isinstance(optimizer, Optimizer):
        return {"class": kind, "state": optimizer.state_dict()}
    return {"class": kind, "variables": variables_of(optimizer.variables)}


def load_optimizer(
    optimizer: Any, state: Mapping[str, Any], variables: Sequence[KerasVariable] = ()
) -> None:
    """Restore what `optimizer_state` returned.

    Args:
        optimizer: One of the same class, over the same weights.
        state: The state.
        variables: What a Keras optimizer that was not built yet is built for.

    Raises:
        CheckpointMismatchError: If the class or the shapes differ; nothing was changed then.
    """
    kind = type(optimizer).__name__
    if state["class"] != kind:
        raise CheckpointMismatchError(
            f"the checkpoint holds the state of the optimizer {state['class']}, given is {kind}\n"
            "Use the same optimizer, or fit(..., allow_changed=['optimizer']) to begin with a new."
        )
    if isinstance(optimizer, Optimizer):
        _check_torch(optimizer, state["state"])
        _load_torch(optimizer, state["state"])
        return
    if not optimizer.built and len(optimizer.variables) != len(state["variables"]):
        optimizer.build(list(variables))
    load_variables(optimizer.variables, state["variables"], f"the optimizer {kind}")


def _load_torch(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Load in place: torch binds new groups and tensors; schedules and programs hold these."""
    groups, slots = optimizer.param_groups, dict(optimizer.state)
    optimizer.load_state_dict(cast("dict[str, Any]", state))
    for old, new in zip(groups, optimizer.param_groups, strict=True):
        _update(old, new)
    optimizer.param_groups = groups
    for weight, new in optimizer.state.items():
        if weight in slots:
            _update(slots[weight], new)
            optimizer.state[weight] = slots[weight]


def _update(old: dict[str, Any], new: Mapping[str, Any]) -> None:
    with torch.no_grad():
        for name, value in new.items():
            held: Any = old.get(name)
            tensors = isinstance(held, Tensor) and isinstance(value, Tensor)
            if tensors and (held.shape, held.dtype) == (value.shape, value.dtype):
                held.copy_(value)
            else:
                old[name] = value


def _check_torch(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    saved = [len(group["params"]) for group in state["param_groups"]]
    now = [len(group["params"]) for group in optimizer.param_groups]
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    moved = [
        f"{name} of weight {index} is {tuple(value.shape)}"
        for index, slots in state["state"].items()
        for name, value in slots.items()
        if isinstance(value, Tensor) and value.dim() and saved == now
        if value.numel() != weights[index].numel() and value.shape != weights[index].shape
    ]
    if saved != now or moved:
        shapes = f"moments of other shapes than its weights: {'; '.join(moved[:3])}"
        groups = f"parameter groups of {now} weights, saved were {saved}"
        raise CheckpointMismatchError(
            "the saved optimizer is of other weights, it cannot be put back\n"
            f"Found: {shapes if moved else groups}.\n"
            "Make the optimizer as it was made in the saved run."
        )


def variables_of(variables: Sequence[KerasVariable]) -> list[Tensor]:
    """Return the tensors of Keras variables, in order."""
    return [variable.value.detach() for variable in variables]


def load_variables(variables: Sequence[KerasVariable], saved: Sequence[Tensor], owner: str) -> None:
    """Copy values into Keras variables, in place.

    Raises:
        CheckpointMismatchError: If number or shapes differ; nothing was changed then.
    """
    now = [tuple(variable.value.shape) for variable in variables]
    shapes = [tuple(value.shape) for value in saved]
    if now != shapes:
        odd = next((i for i, (a, b) in enumerate(zip(now, shapes, strict=False)) if a != b), None)
        where = (
            "" if odd is None else f"Variable {odd} has shape {now[odd]}, saved is {shapes[odd]}.\n"
        )
        raise CheckpointMismatchError(
            f"{owner} has {len(now)} variables that differ from the {len(shapes)} saved ones\n"
            f"{where}Build it as it was built in the saved run."
        )
    with torch.no_grad():
        for variable, value in zip(variables, saved, strict=True):
            variable.value.copy_(value)


def held_optimizers(owner: Any) -> dict[str, Any]:
    """Return the optimizers among the attributes of an object, by name."""
    return {
        name: value
        for name, value in cast("dict[str, Any]", vars(owner)).items()
        if isinstance(value, Optimizer) or is_keras(value, "optimizers.Optimizer")
    }
