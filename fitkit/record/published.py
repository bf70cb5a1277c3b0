"""What a step region has written to the state, and a replay puts there again."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fitkit.data.structure import leaves, map_leaves
from fitkit.loop.state import State
from fitkit.record.refused import Refused

__all__ = ["publish", "published", "refuse_extras"]


def published(state: State, given: Sequence[Tensor], *, outputs: bool) -> dict[str, Any]:
    """Return what the step region has written, by the name under which `publish` puts it back.

    Args:
        state: The state after the region.
        given: The inputs of the step: what is only handed through is not published.
        outputs: Whether somebody reads the outputs after the region.
    """
    inputs = set(map(id, given))
    result: dict[str, Any] = {}
    if hasattr(state, "loss"):
        result["loss"] = state.loss.detach()
    for field in ("losses", "step_values"):
        for name, value in getattr(state, field).items():
            result[f"{field}/{name}"] = value.detach()
    if outputs:
        result["outputs"] = map_leaves(torch.detach, state.outputs)
    if hasattr(state, "step_logs"):
        result["step_logs"] = state.step_logs
    for name, value in vars(state.extra).items():
        if any(isinstance(leaf, Tensor) and id(leaf) not in inputs for _, leaf in leaves(value)):
            result[f"extra/{name}"] = map_leaves(_detached, value)
    return result


def _detached(leaf: Any) -> Any:
    return leaf.detach() if isinstance(leaf, Tensor) else leaf


def refuse_extras(
    before: Mapping[str, Any], extra: Mapping[str, Any], where: str, *, turns: bool
) -> None:
    """Refuse what the step writes to `state.extra` and a replay could not hand on.

    Args:
        before: `state.extra` before the traced step.
        extra: `state.extra` after it.
        where: The line to blame.
        turns: Whether another turn may run backward through what this one leaves.

    Raises:
        Refused: Naming the field.
    """
    for name, value in extra.items():
        tensors = [leaf for _, leaf in leaves(value) if isinstance(leaf, Tensor)]
        if value is not before.get(name) and not tensors:
            raise Refused(
                f"the step writes a host value: state.extra.{name} = {value!r:.40}", where
            )
        if turns and any(t.requires_grad and not t.is_leaf for t in tensors):
            raise Refused(f"state.extra.{name} hands its graph on to another turn", where)


def publish(state: State, results: dict[str, Any]) -> None:
    """Write the results of a program to the state, where the region would have left them."""
    for path, value in results.items():
        field, _, name = path.partition("/")
        if not name:
            setattr(state, field, value)
        elif field == "extra":
            setattr(state.extra, name, value)
        else:
            getattr(state, field)[name] = value
