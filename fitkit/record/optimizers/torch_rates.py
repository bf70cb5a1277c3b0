"""The learning rates of a torch optimizer: floats to everybody, tensors to the program.

torch bakes a float learning rate into what is recorded. Its fused (and capturable) optimizers take
a tensor as well, and read it where they run. So a rate stays the float that schedulers, callbacks
and checkpoints know; only while the step is traced, a 0-d tensor stands in its place, and before
each replay the float is copied there. On a CPU the tensor is float64, and the result is equal bit
by bit; accelerators take float32. Every other number of a group belongs into the key, and so does
the rate of an optimizer that cannot take a tensor.
"""

from collections.abc import Generator, Hashable
from contextlib import contextmanager
from typing import Any, cast, final

import torch
from torch import Tensor
from torch.optim import Optimizer

from fitkit.record.optimizers.live import Live

__all__ = ["TorchRates"]

_FUSED = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD, torch.optim.Adagrad)
_SCALARS = (int, float, bool, str, type(None))


@final
class TorchRates(Live):
    """The learning rates of one torch optimizer.

    Args:
        optimizer: Its groups keep their float rates.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._tensors: list[Tensor | None] = []
        self._filled: list[float] = []  # what the tensors hold
        self._hidden: list[Any] = []

    def key(self) -> Hashable:
        """Return the numbers of all groups, without the rates that tensors stand for."""
        return tuple(
            [
                _numbers(group, without_rate=tensor is not None)
                for group, tensor in zip(self._groups(), self._tensors, strict=True)
            ]
        )

    def _groups(self) -> list[dict[str, Any]]:
        """Return the groups as they are now, after a tensor was made for each that takes one."""
        groups = self._optimizer.param_groups
        if len(self._tensors) != len(groups):
            self._tensors = [_tensor_for(group) for group in groups]
            self._filled = [float("nan")] * len(groups)
        return groups

    def slots(self) -> list[int]:
        """Return which tensors the optimizer keeps per parameter; a program works on these."""
        held = self._optimizer.state.values()
        return [id(slot) for slots in held for slot in slots.values() if isinstance(slot, Tensor)]

    def hide(self) -> None:
        """Put tensors in the place of the rates."""
        groups = self._groups()
        self._hidden = [group["lr"] for group in groups]
        for group, tensor in zip(groups, self._tensors, strict=True):
            if tensor is not None:
                group["lr"] = tensor

    def show(self) -> None:
        """Put the rates back."""
        for group, rate in zip(self._optimizer.param_groups, self._hidden, strict=True):
            group["lr"] = rate

    @contextmanager
    def traced(self) -> Generator[None]:
        """Let the optimizer read tensors."""
        self.hide()
        try:
            yield
        finally:
            self.show()

    def fill(self, read: frozenset[int]) -> None:
        """Copy the rates that have changed."""
        for index, tensor in enumerate(self._tensors):
            rate = self._optimizer.param_groups[index]["lr"]
            if tensor is not None and rate != self._filled[index]:
                self._filled[index] = rate
                tensor.fill_(rate)

    def advice(self) -> str:
        """Return that the fused variant can be recorded, where there is one."""
        fused = all(group.get("fused") for group in self._optimizer.param_groups)
        if fused or type(self._optimizer) not in _FUSED:
            return ""
        return f"Make the optimizer with torch.optim.{type(self._optimizer).__name__}(fused=True)."


def _tensor_for(group: dict[str, Any]) -> Tensor | None:
    """Return a tensor for the rate of a group, or None if its optimizer would read it."""
    if not (group.get("fused") or group.get("capturable")) or not group["params"]:
        return None
    if isinstance(group["lr"], Tensor):
        return None  # the user's own tensor is live already
    device: torch.device = group["params"][0].device
    dtype = torch.float64 if device.type == "cpu" else torch.float32
    return torch.zeros((), dtype=dtype, device=device)


def _numbers(group: dict[str, Any], *, without_rate: bool) -> Hashable:
    hidden = ("params", "lr", "initial_lr") if without_rate else ("params", "initial_lr")
    numbers = [_hashable(value) for name, value in group.items() if name not in hidden]
    return (len(group["params"]), without_rate, *numbers)


def _hashable(value: Any) -> Hashable:
    if isinstance(value, tuple):
        return tuple(map(_hashable, cast("tuple[Any, ...]", value)))
    return (type(value), value) if isinstance(value, _SCALARS) else id(value)
