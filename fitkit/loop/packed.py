"""The scalars of a step in one tensor, copied within the step: a replay does it without Python."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from fitkit.loop.events import Phase

if TYPE_CHECKING:
    from fitkit.loop.state import State

__all__ = ["PACKED", "Packed", "keep_packed", "pack"]

PACKED = "packed"
"""What a callback needs that reads `state.packed`."""

_KEY = "the packed scalars"  # no name that anybody logs


class Packed(NamedTuple):
    """What `state.step_values` held at the end of the step region.

    Attributes:
        values: The tensors themselves, shape () each; anybody may write to them.
        copies: The same numbers in a tensor that nobody writes to, shape (len(values),); float32
            where the values are of several dtypes.
    """

    values: Mapping[str, Tensor]
    copies: Tensor


def pack(state: "State") -> None:
    """Copy `step_values` at the end of the step region. Syncs: never.

    Nothing is copied in a turn, where the values of others stand beside, in a batch that is only a
    part of an update, nor if a value is elsewhere than on the device.
    """
    if state.phase is not Phase.TRAIN or state.turn is not None:
        return
    values, device = [*state.step_values.values()], state.device
    if not values or not (state.opens_update and state.closes_update):
        return
    if all(isinstance(value, Tensor) and value.device == device for value in values):
        if len({value.dtype for value in values}) > 1:  # a count would become the bfloat16 beside
            values = [value.float() for value in values]
        state.step_values[_KEY] = torch.stack(values)  # a replay publishes what is logged


def keep_packed(state: "State") -> None:
    """Write what `pack` has copied to `state.packed`; None if it has not."""
    copies = state.step_values.pop(_KEY, None)
    state.packed = None if copies is None else Packed(state.step_values.copy(), copies)
