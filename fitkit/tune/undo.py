"""An update that is made, and taken back on the device where it should not have been."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor
from torch.optim import Optimizer

from fitkit.loop.callback import Callback
from fitkit.loop.state import State
from fitkit.tune.optimizers import optimizers_beside

if TYPE_CHECKING:
    from fitkit.loop.fit_loop import FitLoop

__all__ = ["Undo", "take_back"]


@final
class Undo:
    """Weights and optimizer slots as they were before an update, without a branch.

    It costs a copy of all of them, and a second pass over them to choose.

    Attributes:
        weights: The parameters of the model.
    """

    def __init__(self) -> None:
        self.weights: list[Tensor] = []
        self._state: State
        self._optimizers: list[Any] = []

    def prepare(self, loop: "FitLoop", callback: Callback) -> None:
        """List what an update writes, at the beginning of a pass."""
        self._state = loop.state
        self.weights = list(loop.model.parameters())
        self._optimizers = optimizers_beside(loop, callback)
        for each in loop.callbacks:
            if build := getattr(each, "build_optimizer", None):
                build()  # what an update that is taken back has made could not be

    @contextmanager
    def unless(self, good: Callable[[], Tensor]) -> Generator[None]:
        """Run the update; keep it where `good()`, bool of shape (), says so.

        Syncs: once, at the first update of a weight by a torch optimizer; per update where the step
        counts of a torch optimizer lie on the CPU and the model does not.
        """
        slots, entries = self._slots(), self._entries()
        held = [*(weight for weight in self.weights if weight.requires_grad), *slots]
        with torch.no_grad():
            before = [tensor.clone() for tensor in held]
        yield
        keep = good()
        take_back(held, before, keep)
        made = list(map(id, self._slots())) != list(map(id, slots))
        if made and not keep:  # sync: once, at the first update of a weight
            for state, old in entries:
                state.clear()
                state.update(old)
            self._state.request_eager()  # what makes slots is no step to record

    def _entries(self) -> list[tuple[dict[Tensor, Any], dict[Tensor, Any]]]:
        """Return what each torch optimizer keeps, by weight, and a copy with the same slots."""
        states = [each.state for each in self._optimizers if isinstance(each, Optimizer)]
        return [(state, {weight: dict(kept) for weight, kept in state.items()}) for state in states]

    def _slots(self) -> list[Tensor]:
        return [slot for optimizer in self._optimizers for slot in _slots_of(optimizer)]


@torch.no_grad()
def take_back(tensors: Sequence[Tensor], before: Sequence[Tensor], keep: Tensor) -> None:
    """Put back in place what was there before, unless `keep`, bool of shape ()."""
    on_device = {device: keep.to(device) for device in {tensor.device for tensor in tensors}}
    for tensor, old in zip(tensors, before, strict=True):
        torch.where(on_device[tensor.device], tensor, old, out=tensor)


def _slots_of(optimizer: Any) -> Iterator[Tensor]:
    """Yield the tensors an optimizer keeps from update to update, of torch or Keras."""
    if isinstance(optimizer, Optimizer):
        for slots in optimizer.state.values():
            yield from (value for value in slots.values() if isinstance(value, Tensor))
    else:
        yield from (variable.value for variable in optimizer.variables)
