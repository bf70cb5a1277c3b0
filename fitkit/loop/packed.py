"""The scalars of a step in one tensor, copied within the step: a replay does it without Python."""

from ast import literal_eval
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from fitkit.loop.events import Phase

if TYPE_CHECKING:
    from fitkit.loop.state import State

__all__ = ["PACKED", "Packed", "copy_of", "keep_packed", "pack", "packed_of"]

PACKED = "packed"
"""What a callback needs that reads `state.packed`."""

_MARK = "\0packed "  # begins, in `step_values`, the name of the copy; what was copied follows


class Packed(NamedTuple):
    """What a batch has logged, in tensors that nobody writes to, float32.

    Attributes:
        names: What was logged in the step region, and the learning rates of `state.rates`.
        copies: The numbers, shape (len(names),).
        beside: What was logged before or after it, shape (1,) each.
    """

    names: tuple[str, ...]
    copies: Tensor
    beside: dict[str, Tensor]


def packed_of(state: "State") -> Packed:
    """Return a copy of `step_values` and `rates`, from wherever they are."""
    values: dict[str, Tensor] = {name: rate() for name, rate in state.rates.items()}
    values |= state.step_values  # somebody may log a name of these
    options: Any = {"dtype": torch.float32, "device": state.device}
    numbers = [torch.as_tensor(value, **options) for value in values.values()]
    return Packed((*values,), torch.stack(numbers) if numbers else torch.empty(0, **options), {})


def pack(state: "State") -> None:
    """Copy what was logged, at the end of the step region. Syncs: never.

    Nothing is copied in a turn, where the values of others stand beside, nor if a value is not on
    the device.
    """
    values, device = state.step_values, state.device
    if state.phase is not Phase.TRAIN or state.turn is not None or not values:
        return
    if all(isinstance(value, Tensor) and value.device == device for value in values.values()):
        names, copies, _ = packed_of(state)
        values[f"{_MARK}{names!r}"] = copies  # a replay publishes what is logged


def keep_packed(state: "State") -> None:
    """Write what `pack` has copied to `state.packed`; None if it has not."""
    values = state.step_values
    latest = next(reversed(values), "")
    if not latest.startswith(_MARK):
        state.packed = None
        return
    names, copies = _split(latest), values.pop(latest)
    state.packed = Packed(names, copies, {})
    if len(values) + len(state.rates) > len(names):  # a replay knows of nothing before it
        others = {name: value for name, value in values.items() if name not in names}
        device = state.device
        state.packed.beside.update({n: copy_of(value, device) for n, value in others.items()})


def copy_of(value: Tensor, device: torch.device) -> Tensor:
    """Return a copy of a scalar of any device on `device`, float32, shape (1,)."""
    return value.detach().reshape(1).to(device, torch.float32, copy=True)


@lru_cache(1000)
def _split(key: str) -> tuple[str, ...]:
    return literal_eval(key.removeprefix(_MARK))
