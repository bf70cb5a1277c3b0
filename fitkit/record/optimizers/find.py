"""The optimizers that the callbacks of a step hold or mention."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from types import FunctionType, MethodType
from typing import Any, cast

from torch.optim import Optimizer

from fitkit.interop import is_keras
from fitkit.loop.bus import EventBus, owner_of
from fitkit.loop.callback import Callback
from fitkit.loop.events import REGION, Phase
from fitkit.record.region import step_functions

__all__ = ["optimizers_by_turn", "optimizers_of"]

_MAX_DEPTH = 3
_MAX_ITEMS = 64


def optimizers_by_turn(bus: EventBus) -> dict[str | None, list[Any]]:
    """Return, by the name of the turn, the optimizers its training step may apply."""
    found: dict[str | None, list[Any]] = {}
    for turn in bus.turns:
        hooks = [h for event in REGION[Phase.TRAIN] for h in bus.hooks(Phase.TRAIN, event, turn)]
        callbacks = list(dict.fromkeys(map(owner_of, hooks)))
        functions = [function for each in callbacks for function in step_functions(each)]
        found[turn.name if turn else None] = optimizers_of(callbacks, functions)
    return found


def optimizers_of(
    callbacks: Iterable[Callback], functions: Iterable[Callable[..., Any]]
) -> list[Any]:
    """Return the optimizers in attributes, containers, closures and globals, each once.

    Args:
        callbacks: Whose attributes are looked at.
        functions: Whose closures, globals and methods are looked at.
    """
    found: dict[int, Any] = {}
    for callback in callbacks:
        for optimizer in _walk(list(vars(callback).values()), _MAX_DEPTH):
            found[id(optimizer)] = optimizer
    for function in functions:
        for optimizer in _walk(function, _MAX_DEPTH):
            found[id(optimizer)] = optimizer
    return list(found.values())


def _walk(value: Any, depth: int) -> Iterator[Any]:
    if isinstance(value, Optimizer) or is_keras(value, "optimizers.Optimizer"):
        yield value
    elif depth == 0:
        return
    elif isinstance(value, dict | list | tuple):
        held = cast("dict[Any, Any] | list[Any] | tuple[Any, ...]", value)
        for item in islice(held.values() if isinstance(held, dict) else held, _MAX_ITEMS):
            yield from _walk(item, depth - 1)
    elif isinstance(value, MethodType):
        yield from _walk(value.__func__, depth)
        yield from _walk(list(getattr(value.__self__, "__dict__", {}).values()), depth - 1)
    elif isinstance(value, FunctionType):
        for item in _outer_variables(value):
            yield from _walk(item, depth - 1)


def _outer_variables(function: FunctionType) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    for name in function.__code__.co_names:
        if name in function.__globals__:
            value = function.__globals__[name]
            if not isinstance(value, FunctionType):
                yield value
