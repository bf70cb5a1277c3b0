"""Passes that leave no trace: what of a run they use, and what is put back after them."""

import copy
import random
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fitkit.interop import global_seed, is_keras, keras_layers_of, modules_of, set_global_seed
from fitkit.loop.applied import applied_optimizers
from fitkit.loop.callback import Callback, listens_to
from fitkit.loop.events import REGION, Event, Phase
from fitkit.loop.state import State
from fitkit.tune.keras_callbacks import KerasCallbacks
from fitkit.tune.lr_schedule import LRSchedule
from fitkit.tune.tensor_lists import copy_, copy_of

if TYPE_CHECKING:
    from fitkit.loop.fit_loop import FitLoop

__all__ = ["players", "untouched", "untouched_model", "untouched_optimizers"]

Undo = Callable[[], object]

_COUNTERS = ("epoch", "num_epochs", "num_updates", "num_batches", "num_samples")
_LIMITS = ("max_epochs", "max_steps", "max_time_s", "stop", "stop_reason", "eager_requested")
_WATCHERS = tuple(f"fitkit.{folder}." for folder in ("watch", "loop", "record", "checkpoint"))


def players(loop: "FitLoop", phase: Phase, *, metrics: bool) -> list[Callback]:
    """Return the callbacks a rehearsed pass needs: those that make, change or use its batches.

    Args:
        loop: The loop to rehearse.
        phase: The kind of pass.
        metrics: Whether those that only update metrics take part.
    """
    region = [e for e in REGION[phase] if e is not Event.UPDATE_METRICS]
    before = [Event.PASS_BEGIN, Event.BATCH_BEGIN]

    def plays(callback: Callback) -> bool:
        module = type(callback).__module__ + "."
        if module.startswith(_WATCHERS) or isinstance(callback, KerasCallbacks | LRSchedule):
            return False
        acts = any(listens_to(callback, e) or e in callback.around for e in region)
        updates = listens_to(callback, Event.UPDATE_METRICS)
        if updates and not acts:
            return metrics
        return acts or any(listens_to(callback, event) for event in before)

    return [callback for callback in loop.callbacks if plays(callback)]


@contextmanager
def untouched(
    loop: "FitLoop", callbacks: Sequence[Callback], loaders: Iterable[Any]
) -> Generator[None]:
    """Put back what a pass in the body changes, except weights and optimizers.

    Counters, limits, logs, flags and random numbers of the run; the states of `callbacks`; modes,
    `trainable` flags and random numbers of the model; where the loaders are.
    """
    undo: list[Undo] = []
    undo += _state_undo(loop.state)
    # What applies an optimizer keeps its state: see `untouched_optimizers`.
    undo += [_callback_undo(each) for each in callbacks if not hasattr(each, "optimizer")]
    undo += _mode_undo(loop.model)
    undo += _generator_undo(loop.model, callbacks)
    undo += [each for loader in loaders for each in _loader_undo(loader)]
    logs, loop.state.logs = loop.state.logs, {}
    try:
        yield
    finally:
        loop.state.logs = logs
        for put_back in undo:
            put_back()


@contextmanager
def untouched_model(model: nn.Module) -> Generator[None]:
    """Put back everything a model holds: weights, statistics, metrics, gradients."""
    tensors: list[Tensor] = [*model.parameters(), *model.buffers()]
    tensors += [v.value for layer in keras_layers_of(model) for v in layer.variables]
    if is_keras(model, "Model"):
        metrics: list[Any] = cast(Any, model).metrics
        tensors += [variable.value for metric in metrics for variable in metric.variables]
    tensors = list({id(tensor): tensor for tensor in tensors}.values())
    copies = copy_of(tensors)
    gradients = [(t, t.grad, None if t.grad is None else t.grad.clone()) for t in tensors]
    try:
        yield
    finally:
        copy_(tensors, copies)
        for tensor, gradient, copied in gradients:
            tensor.grad = gradient
            if gradient is not None and copied is not None:
                gradient.copy_(copied)


@contextmanager
def untouched_optimizers(loop: "FitLoop") -> Generator[None]:
    """Put back slots, counters and numbers of the optimizers; a Keras optimizer must be built."""
    with ExitStack() as stack:
        for optimizer in applied_optimizers(loop).values():
            kind = _torch_undo if isinstance(optimizer, Optimizer) else _keras_undo
            stack.callback(kind(optimizer))
        yield


def _state_undo(state: State) -> list[Undo]:
    values = {name: getattr(state, name) for name in (*_COUNTERS, *_LIMITS)}
    turns, requests, started_at = dict(state.turn_updates), set(state.requests), state.started_at

    def put_back() -> None:
        for name, value in values.items():
            setattr(state, name, value)
        state.turn_updates, state.started_at = turns, started_at
        state.requests.clear()
        state.requests.update(requests)

    return [put_back]


def _callback_undo(callback: Callback) -> Undo:
    saved = copy.deepcopy(callback.state_dict())
    return lambda: callback.load_state_dict(saved) if saved else None


def _mode_undo(model: nn.Module) -> list[Undo]:
    undo: list[Undo] = []
    for module in modules_of(model):
        undo.append(lambda m=module, was=module.training: setattr(m, "training", was))
    for parameter in model.parameters():
        undo.append(lambda p=parameter, was=parameter.requires_grad: p.requires_grad_(was))
    return undo


def _generator_undo(model: nn.Module, callbacks: Iterable[Callback]) -> list[Undo]:
    """Return what restores the random numbers: Python's, numpy's, torch's, those of Keras."""
    python, array, host = random.getstate(), np.random.get_state(), torch.get_rng_state()
    undo: list[Undo] = [
        lambda: random.setstate(python),
        lambda: np.random.set_state(array),
        lambda: torch.set_rng_state(host),
    ]
    if torch.cuda.is_initialized():
        states = torch.cuda.get_rng_state_all()  # sync: once per rehearsal
        undo.append(lambda: torch.cuda.set_rng_state_all(states))
    held = [value for callback in callbacks for value in vars(callback).values()]
    seeds = [value.state for value in held if is_keras(value, "random.SeedGenerator")]
    seeds += [v for layer in keras_layers_of(model) for v in layer.non_trainable_variables]
    seed = global_seed()
    kept = None if seed is None else seed.clone()
    undo.append(lambda: set_global_seed(kept))
    tensors = [variable.value for variable in seeds]
    copies = copy_of(tensors)
    undo.append(lambda: copy_(tensors, copies))
    for value in held:
        undo += _own_generator_undo(value)
    return undo


def _own_generator_undo(value: Any) -> list[Undo]:
    if isinstance(value, torch.Generator):
        state = value.get_state()
        return [lambda: value.set_state(state)]
    if isinstance(value, np.random.Generator):
        bits: Any = value.bit_generator
        saved = copy.deepcopy(bits.state)
        return [lambda: setattr(bits, "state", saved)]
    if isinstance(value, random.Random):
        drawn = value.getstate()
        return [lambda: value.setstate(drawn)]
    return []


def _loader_undo(loader: Any) -> list[Undo]:
    """Return what restores numbers and generators of a loader and its samplers."""
    parts: list[Any] = [loader]
    for part in parts:
        names = ("loader", "dataset", "sampler", "batch_sampler")
        inner = [getattr(part, name, None) for name in names]
        parts += [each for each in inner if each is not None and all(each is not p for p in parts)]
    undo: list[Undo] = []
    for part in parts:
        attributes: dict[str, Any] = getattr(part, "__dict__", {})
        numbers = {k: v for k, v in attributes.items() if isinstance(v, int | float | str)}
        undo.append(lambda held=attributes, saved=numbers: held.update(saved))
        for value in attributes.values():
            undo += _own_generator_undo(value)
    return undo


def _torch_undo(optimizer: Optimizer) -> Undo:
    slots = {
        parameter: {k: (v, copy.deepcopy(v)) for k, v in held.items()}
        for parameter, held in cast("dict[Any, dict[str, Any]]", optimizer.state).items()
    }
    groups: list[dict[str, Any]] = optimizer.param_groups
    numbers = [{k: (v, copy.deepcopy(v)) for k, v in g.items() if k != "params"} for g in groups]

    def put_back() -> None:
        optimizer.state.clear()
        for parameter, held in slots.items():
            optimizer.state[parameter] = {k: _own(*pair) for k, pair in held.items()}
        for group, saved in zip(groups, numbers, strict=True):
            group.update({k: _own(*pair) for k, pair in saved.items()})

    return put_back


def _own(value: Any, saved: Any) -> Any:
    """Return the very tensor it was, with the values it had; programs work on it."""
    if isinstance(value, Tensor):
        copy_([value], [saved])
        return value
    return saved


def _keras_undo(optimizer: Any) -> Undo:
    tensors = [variable.value for variable in optimizer.variables]
    copies = copy_of(tensors)
    attributes = cast("dict[str, Any]", vars(optimizer))
    numbers = {k: v for k, v in attributes.items() if isinstance(v, int | float)}

    def put_back() -> None:
        copy_(tensors, copies)
        for name, value in numbers.items():
            setattr(optimizer, name, value)

    return put_back
