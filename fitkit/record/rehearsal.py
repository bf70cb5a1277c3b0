"""The first step of a kind run and undone: it builds what is built lazily, and does not count."""

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Any, final

import torch
from torch import Tensor
from torch.optim import SGD, Optimizer
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from fitkit.loop.state import State
from fitkit.record.generators import Generators
from fitkit.record.passes.writes import BATCH_NORMS
from fitkit.record.refused import Refused
from fitkit.record.region import fields_kept

__all__ = ["rehearsal"]


@contextmanager
def rehearsal(state: State, optimizers: Iterable[Any]) -> Generator[None]:
    """Undo what the step region does inside: to tensors, generators, gradients and the state.

    What it creates stays: slots of optimizers and accumulators, with the values they began with.
    Weights exist already; a loop takes no model that is not built.

    Args:
        state: The state of the loop.
        optimizers: Those that the step applies.

    Raises:
        Refused: If slots of an optimizer cannot be put back to where they began.
    """
    parameters = list(state.model.parameters())
    gradients = [parameter.grad for parameter in parameters]
    generators = Generators(parameters)
    fresh = [each for each in optimizers if isinstance(each, Optimizer) and not each.state]
    writes = _Writes()
    with fields_kept(state):
        with writes:
            yield
        writes.undo()
    for optimizer in fresh:
        _begin_anew(optimizer)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    generators.restore()


def _begin_anew(optimizer: Optimizer) -> None:
    """Empty the momentum of SGD, which begins as the first gradient and not as zeros."""
    if not isinstance(optimizer, SGD):
        return
    if any(group["momentum"] and group["dampening"] for group in optimizer.param_groups):
        raise Refused("SGD with dampening treats its first step unlike all others; not rehearsed")
    for slots in optimizer.state.values():
        momentum = slots.get("momentum_buffer")
        if momentum is not None:
            momentum.zero_()


@final
class _Writes(TorchDispatchMode):
    """Keeps what tensors held before they were written in place."""

    def __init__(self) -> None:
        super().__init__()  # pyright: ignore[reportUnknownMemberType]  # torch leaves it open
        self._before: list[tuple[Tensor, Tensor]] = []
        self._ids: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Note what the operation is about to write, then run it."""
        kwargs = kwargs or {}
        for index, parameter in enumerate(func._schema.arguments):
            writes = parameter.alias_info is not None and parameter.alias_info.is_write
            if writes or (func in BATCH_NORMS and index in (3, 4)):
                value = args[index] if index < len(args) else kwargs.get(parameter.name)
                for leaf in pytree.tree_leaves(value):
                    self._note(leaf)
        return func(*args, **kwargs)

    def _note(self, tensor: Any) -> None:
        if isinstance(tensor, Tensor) and id(tensor) not in self._ids:
            self._ids.add(id(tensor))  # the list keeps the tensor, so no id comes back
            self._before.append((tensor, tensor.detach().clone()))

    def undo(self) -> None:
        """Put everything back; the latest first, because views share memory."""
        with torch.no_grad():
            for tensor, value in reversed(self._before):
                tensor.copy_(value)
