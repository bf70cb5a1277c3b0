"""The step region as a function of tensors: what of the state goes in, and which hooks it is."""

from collections.abc import Callable, Generator, Hashable, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from inspect import unwrap
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from fitkit.data import Gather
from fitkit.data.structure import leaves, map_leaves
from fitkit.loop.bus import EventBus, owner_of
from fitkit.loop.callback import Callback, listens_to
from fitkit.loop.events import REGION, Phase, hook_name
from fitkit.loop.listener import Listener
from fitkit.loop.state import UNSET, State
from fitkit.record.refused import Refused

__all__ = [
    "StepInputs",
    "fields_kept",
    "line_of",
    "region_of",
    "step_functions",
    "step_inputs",
    "substituted",
]

_FIELDS = ("inputs", "targets", "sample_weight")
_KEPT = (
    *(*_FIELDS, "batch", "outputs", "loss", "losses", "grad_scale"),
    *("step_values", "step_logs"),
)
_HOST_VALUES = (int, float, complex, str, bytes, Enum, torch.dtype, torch.device, type(None))
# Host fields that change from step to step: a traced step that reads or writes one of them would
# keep what it was, so it is refused.
_HOST_FIELDS = frozenset(
    {"epoch", "num_epochs", "num_updates", "num_batches", "num_samples", "turn_updates"}
    | {"epoch_batches", "stop_signal"}
    | {"batch_index", "data_wait_s", "num_batches_expected", "prefix", "logs", "requests"}
    | {"max_epochs", "max_steps", "max_time_s", "stop", "stop_reason", "started_at", "elapsed_s"}
    | {"exits", "error", "eager_requested"}
)


class StepInputs(NamedTuple):
    """What of the state the step region depends on.

    Attributes:
        tensors: The tensors that differ from step to step, in a fixed order.
        key: Their layout and everything else that is no tensor; equal keys, equal programs.
        opaque: What is neither tensor nor number, so that nobody can tell whether it changed.
    """

    tensors: list[Tensor]
    key: Hashable
    opaque: str | None = None


def step_inputs(state: State) -> StepInputs:
    """Return the tensors of the batch and of `state.extra`. Gathers nothing, syncs never."""
    gather, extra = state.pending, vars(state.extra)
    if gather is not None and not extra and state.grad_scale is None:  # fast, and the usual case
        return StepInputs([gather.index], (state.batch_size, gather.ids))
    tensors: list[Tensor] = []
    layout: list[object] = [state.batch_size]
    opaque: list[str] = []
    if gather is not None:
        tensors.append(gather.index)
        layout.append(gather.ids)
    else:
        for name in _FIELDS:
            _collect(getattr(state, name), tensors, layout, opaque)
    _collect(state.grad_scale, tensors, layout, opaque)
    for name, value in extra.items():
        layout.append(name)
        _collect(value, tensors, layout, opaque)
    layout += [(t.shape, t.dtype, t.device, t.stride(), t.requires_grad) for t in tensors]
    places = {id(tensor): place for place, tensor in enumerate(tensors)}
    if len(places) < len(tensors):  # the same tensor twice, which a trace cannot tell apart
        layout += [places[id(tensor)] for tensor in tensors]
    return StepInputs(tensors, tuple(layout), opaque[0] if opaque else None)


def _collect(value: Any, tensors: list[Tensor], layout: list[object], opaque: list[str]) -> None:
    if isinstance(value, Tensor):
        tensors.append(value)
        layout.append("tensor")
    elif isinstance(value, Mapping):
        layout += [type(cast(Any, value)), *cast("Mapping[Any, Any]", value)]
        for item in cast("Mapping[Any, Any]", value).values():
            _collect(item, tensors, layout, opaque)
    elif isinstance(value, list | tuple):
        layout += [type(cast(Any, value)), len(cast(Any, value))]
        for item in cast("Sequence[Any]", value):
            _collect(item, tensors, layout, opaque)
    elif isinstance(value, _HOST_VALUES):
        layout += [type(value), value]
    else:
        opaque.append(type(value).__name__)


@contextmanager
def substituted(state: State, tensors: Sequence[Tensor]) -> Generator[None]:
    """Put `tensors` in the place of those of `step_inputs`; put everything back afterwards.

    While it lasts, the state refuses access to host fields.
    """
    with fields_kept(state) as before:
        pending, extra = state.pending, dict(vars(state.extra))
        supply = iter(tensors)
        state.unset(("outputs", "loss", "step_logs"))
        if pending is not None:
            state.pending = Gather(pending.arrays, next(supply), pending.ids)
        else:
            for name in _FIELDS:
                setattr(state, name, _replaced(before[name], supply))
            _replace_batch(state, before)
        state.grad_scale = _replaced(before["grad_scale"], supply)
        for name, value in extra.items():
            setattr(state.extra, name, _replaced(value, supply))
        state.losses, state.step_values = {}, {}
        state.__class__ = _TracedState
        try:
            yield
        finally:
            state.__class__ = State


@contextmanager
def fields_kept(state: State) -> Generator[dict[str, Any]]:
    """Put the fields of the batch back that the step region writes; yield them by name."""
    found = {name: state.peek(name) for name in _KEPT}
    before = {name: value for name, value in found.items() if value is not UNSET}
    pending, extra = state.pending, dict(vars(state.extra))
    step_values, losses = dict(state.step_values), dict(state.losses)
    try:
        yield before
    finally:
        state.unset(_KEPT)
        for name, value in before.items():
            setattr(state, name, value)
        state.step_values, state.losses = step_values, losses
        state.pending = pending
        vars(state.extra).clear()
        vars(state.extra).update(extra)


def _replace_batch(state: State, before: dict[str, Any]) -> None:
    """Rebuild `state.batch` from the new fields; leave it unset if it holds anything else."""
    state.unset(("batch",))
    known: dict[int, Any] = {}
    for name in _FIELDS:
        pairs = zip(leaves(before[name]), leaves(getattr(state, name)), strict=True)
        known.update((id(old), new) for (_, old), (_, new) in pairs)
    if all(id(leaf) in known for _, leaf in leaves(before["batch"])):
        state.batch = map_leaves(lambda leaf: known[id(leaf)], before["batch"])


def _replaced(value: Any, supply: Any) -> Any:
    def replace(leaf: Any) -> Any:
        return next(supply) if isinstance(leaf, Tensor) else leaf

    return map_leaves(replace, value)


class _TracedState(State):
    """The state while its step region is traced."""

    __slots__ = ()

    def __getattribute__(self, name: str) -> Any:
        if name in _HOST_FIELDS:
            raise Refused(f"the step reads state.{name}, which is Python's and changes")
        return super().__getattribute__(name)

    def __setattr__(self, name: str, value: object) -> None:
        if name in _HOST_FIELDS:
            raise Refused(f"the step writes state.{name}, which only happens in Python")
        super().__setattr__(name, value)


def line_of(hook: Callable[..., Any]) -> str:
    """Return where the function behind a hook is defined, as ``file:line in function``."""
    owner = owner_of(hook)
    function = owner.function if isinstance(owner, Listener) else unwrap(hook)
    code = getattr(unwrap(function), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno} in {code.co_name}" if code else ""


def region_of(bus: EventBus) -> Hashable:
    """Return what the step region consists of: equal values, equal hooks in equal order."""
    named = [(phase, None) for phase in Phase] + [(Phase.TRAIN, turn) for turn in bus.turns]
    hooks = [
        (phase, turn, event, tuple(map(unwrap, bus.hooks(phase, event, turn))))
        for phase, turn in named
        for event in REGION[phase]
    ]
    around = [(callback, *callback.around.items()) for callback in bus.step_callbacks]
    return (*hooks, *around)


def step_functions(callback: Callback) -> list[Callable[..., Any]]:
    """Return the functions of a callback that run in the step region."""
    if isinstance(callback, Listener):
        return [callback.function]
    hooks = (event for event in REGION[Phase.TRAIN] if listens_to(callback, event))
    return [getattr(type(callback), hook_name(event)) for event in hooks]
