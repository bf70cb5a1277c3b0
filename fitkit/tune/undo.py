"""An update that is made, and taken back on the device where it should not have been."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor
from torch.optim import Optimizer

from fitkit.loop.callback import Callback
from fitkit.tune.loss_scale import slots_of
from fitkit.tune.optimizers import optimizers_beside

if TYPE_CHECKING:
    from fitkit.loop.fit_loop import FitLoop

__all__ = ["Undo"]


@final
class Undo:
    """Weights and optimizer slots as they were before an update, without a branch.

    It costs a copy of all of them, and a second pass over them to choose.

    Attributes:
        forgot: Whether the slots that a first update has made were undone.
    """

    def __init__(self) -> None:
        self._weights: list[Tensor] = []
        self._optimizers: list[Any] = []
        self.forgot = False

    def prepare(self, loop: "FitLoop", callback: Callback) -> None:
        """List what an update writes, at the beginning of a pass."""
        self._weights = list(loop.model.parameters())
        self._optimizers = optimizers_beside(loop, callback)
        for each in loop.callbacks:
            if build := getattr(each, "build_optimizer", None):
                build()  # what an update that is taken back has made could not be

    @contextmanager
    def unless(self, good: Callable[[], Tensor]) -> Generator[None]:
        """Run the update; keep it where `good()`, bool of shape (), says so.

        Syncs: once, at the first update of a torch optimizer.
        """
        slots = self._slots()
        held = [*(weight for weight in self._weights if weight.requires_grad), *slots]
        with torch.no_grad():
            before = [tensor.clone() for tensor in held]
        yield
        keep = good()
        with torch.no_grad():
            for tensor, old in zip(held, before, strict=True):
                tensor.copy_(torch.where(keep.to(tensor.device), tensor, old))
        if list(map(id, self._slots())) != list(map(id, slots)):
            self.forgot = not bool(keep)  # sync: once, at a first update
            for optimizer in self._optimizers:
                if self.forgot and isinstance(optimizer, Optimizer):
                    optimizer.state.clear()

    def _slots(self) -> list[Tensor]:
        return [slot for optimizer in self._optimizers for slot in slots_of(optimizer)]
