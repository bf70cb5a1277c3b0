"""The first step of a kind run and undone: it builds what is built lazily, and does not count."""

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from functools import partial
from typing import Any, final

import torch
from torch import Tensor
from torch.optim import SGD, Optimizer
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import (
    TorchDispatchMode,
    _disable_current_modes,  # pyright: ignore[reportPrivateUsage]
)

from fitkit.loop.state import State
from fitkit.record.generators import Generators
from fitkit.record.passes.writes import BATCH_NORMS
from fitkit.record.python_state import PythonState
from fitkit.record.refused import Refused
from fitkit.record.region import fields_kept

__all__ = ["rehearsal"]


@contextmanager
def rehearsal(state: State, optimizers: Iterable[Any], python: PythonState) -> Generator[None]:
    """Undo what the step region does inside: to tensors, generators, gradients and the state.

    What it creates stays: slots of optimizers and accumulators, with the values they began with.
    Weights exist already; a loop takes no model that is not built.

    Args:
        state: The state of the loop.
        optimizers: Those that the step applies.
        python: The attributes that the step can reach.

    Raises:
        Refused: If something cannot be put back to where it began: slots of an optimizer, an
            attribute (`if self.mean is None: self.mean = x.clone()` has done its part then).
    """
    parameters = list(state.model.parameters())
    gradients = [parameter.grad for parameter in parameters]
    generators = Generators(parameters)
    torchs = [each for each in optimizers if isinstance(each, Optimizer)]
    slots, attributes = [_slots(each) for each in torchs], python.snapshot()
    writes = _Writes()
    with fields_kept(state), _built_for_good(optimizers):
        with writes:
            yield
        writes.undo()
    for optimizer, before in zip(torchs, slots, strict=True):
        _begin_anew(optimizer, before, writes)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    generators.restore()
    if built := python.built(attributes):
        raise Refused(f"the first step changes Python state: {built}; not rehearsed")


@contextmanager
def _built_for_good(optimizers: Iterable[Any]) -> Generator[None]:
    """Let what Keras's optimizers write while they are built stay: there their slots begin."""
    unbuilt = [each for each in optimizers if not getattr(each, "built", True)]

    def build_for_good(build: Any, *args: Any) -> None:
        with _disable_current_modes():
            build(*args)

    for optimizer in unbuilt:
        vars(optimizer)["build"] = partial(build_for_good, optimizer.build)
    try:
        yield
    finally:
        for optimizer in unbuilt:
            del vars(optimizer)["build"]


def _slots(optimizer: Optimizer) -> dict[int, tuple[str, Tensor]]:
    """Return the tensors that an optimizer keeps per parameter, with their names, by id."""
    held = [item for slots in optimizer.state.values() for item in slots.items()]
    return {id(slot): (name, slot) for name, slot in held if isinstance(slot, Tensor)}


def _begin_anew(
    optimizer: Optimizer, before: dict[int, tuple[str, Tensor]], writes: "_Writes"
) -> None:
    """Empty the momentum of SGD, which begins as the first gradient and not as zeros."""
    for each, (name, slot) in _slots(optimizer).items():
        momentum = isinstance(optimizer, SGD) and name == "momentum_buffer"
        if each in before or (writes.undid(slot) and not momentum):
            continue
        if not momentum:
            kind = type(optimizer).__name__
            raise Refused(f"{kind} takes {name} from its first step; not rehearsed")
        if any(group["momentum"] and group["dampening"] for group in optimizer.param_groups):
            raise Refused("SGD with dampening treats its first step unlike others; not rehearsed")
        slot.zero_()


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

    def undid(self, tensor: Tensor) -> bool:
        """Return whether a tensor was written, and so put back."""
        return id(tensor) in self._ids

    def undo(self) -> None:
        """Put everything back; the latest first, because views share memory."""
        with torch.no_grad():
            for tensor, value in reversed(self._before):
                tensor.copy_(value)
