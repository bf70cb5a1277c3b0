"""What a run is made of, taken apart to be saved: everything that a later step depends on."""

import platform
import sys
from collections.abc import Iterable, Iterator
from importlib import metadata
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fitkit.data import describe_loader, has_workers, own_state, process_streams, streams_of
from fitkit.interop import global_seed, is_keras, keras_layers_of, state_tensors
from fitkit.loop.callback import Callback
from fitkit.loop.events import Phase
from fitkit.store import Content

if TYPE_CHECKING:
    from fitkit.loop.fit_loop import FitLoop

__all__ = [
    "COUNTERS",
    "keyed",
    "loaders_of",
    "snapshot",
    "trained_flags",
    "trained_tensors",
    "unsaved_optimizers",
    "versions",
]

COUNTERS = (
    *("epoch", "num_epochs", "num_updates", "num_batches", "num_samples"),
    *("turn_updates", "epoch_batches"),
)


def snapshot(loop: "FitLoop") -> Content:
    """Return the state of a run between two updates.

    The tensors are those of the run itself: write them before the next step, or copy them.

    Raises:
        ValueError: If an accumulation window is open: gradients are not saved.
    """
    state = loop.state
    if loop.runner.window_is_open:
        raise ValueError("a snapshot was asked for within an accumulation window")
    counters = {name: getattr(state, name) for name in COUNTERS}
    attached = keyed(loop.callbacks)
    callbacks = {key: callback.state_dict() for key, callback in attached.items()}
    loaders = loaders_of(loop)
    meta = {
        "versions": versions(),
        "model": type(loop.model).__name__,
        "counters": {**counters, "elapsed_s": state.elapsed_s},
        "logs": {name: value for name, value in state.logs.items() if _is_number(value)},
        "trained": trained_flags(loop),
        "data": {name: describe_loader(loader) for name, loader in loaders.items()},
        "watching": [key for key, callback in attached.items() if only_reads(callback)],
    }
    content = {
        "callbacks": callbacks,
        "streams": _streams(loop),
        "loaders": {name: streams_of(loader) for name, loader in loaders.items()},
        "pass": _pass_of(loop) if state.epoch_batches else None,
        "workers": [name for name, loader in loaders.items() if has_workers(loader)],
    }
    return Content(meta=meta, model=state_tensors(loop.model), state=content)


def trained_flags(loop: "FitLoop") -> list[bool | None]:
    """Return which tensors of the model are trained, in order; None where `Freeze` decides."""
    held: set[int] = set()
    for callback in loop.callbacks:
        frozen: Any = getattr(callback, "held", None)
        held |= frozen.keys() if isinstance(frozen, dict) else set()
    tensors = state_tensors(loop.model).values()
    return [None if id(tensor) in held else tensor.requires_grad for tensor in tensors]


def trained_tensors(model: nn.Module) -> list[Tensor]:
    """Return parameters, buffers and running statistics, in an order that other processes share.

    The states of Keras's random generators and of its metrics are none of these, although Keras
    keeps them as parameters as well.
    """
    layers: list[Any] = keras_layers_of(model)
    of_keras = {id(v.value) for layer in layers for v in layer.variables}
    own = [t for t in (*model.parameters(), *model.buffers()) if id(t) not in of_keras]
    weights = [variable.value for layer in layers for variable in layer.weights]
    return list({id(tensor): tensor for tensor in (*own, *weights)}.values())


def unsaved_optimizers(callbacks: Iterable[Callback]) -> list[tuple[Callback, Any]]:
    """Return optimizers whose moments nobody saves, each with the callback that holds it."""
    saving = [c for c in callbacks if type(c).state_dict is not Callback.state_dict]
    saved = {id(value) for callback in saving for value in _held(callback)}
    return [
        (callback, value)
        for callback in callbacks
        if callback not in saving
        for value in _held(callback)
        if id(value) not in saved
        and (isinstance(value, Optimizer) or is_keras(value, "optimizers.Optimizer"))
    ]


def _held(callback: Callback) -> Iterator[Any]:
    for value in vars(callback).values():
        if isinstance(value, dict):
            yield from cast("dict[Any, Any]", value).values()
        elif isinstance(value, list | tuple):
            yield from cast("Iterable[Any]", value)
        else:
            yield value


def versions() -> dict[str, str]:
    """Return the versions of what computes."""
    found = {"torch": torch.__version__, "numpy": np.__version__}
    found |= {"python": platform.python_version()}
    keras: Any = sys.modules.get("keras")
    if keras is not None:
        found["keras"] = keras.__version__
    try:
        return {"fitkit": metadata.version("fitkit"), **found}
    except metadata.PackageNotFoundError:  # a checkout on the path
        return found


def keyed(callbacks: Iterable[Callback]) -> dict[str, Callback]:
    """Return callbacks by the name of their class, numbered from the second of a class on."""
    found: dict[str, Callback] = {}
    for callback in callbacks:
        name, number = type(callback).__name__, 2
        key = name
        while key in found:
            key, number = f"{name}#{number}", number + 1
        found[key] = callback
    return found


def only_reads(callback: Callback) -> bool:
    """Return whether a run trains the same without it: fitkit's own that show and write."""
    return type(callback).__module__.startswith("fitkit.watch.")


def loaders_of(loop: "FitLoop") -> dict[str, Any]:
    """Return the loaders of a loop, by the name messages give them."""
    found = {f"val_loader['{n}']" if n else "val_loader": x for n, x in loop.val_loaders.items()}
    return {"train_loader": loop.train_loader, **found}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def _streams(loop: "FitLoop") -> dict[str, Any]:
    streams = process_streams()
    if (seed := global_seed()) is not None:
        streams["keras"] = seed
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        streams["cuda"] = torch.cuda.get_rng_state_all()
    return streams


def _pass_of(loop: "FitLoop") -> dict[str, Any]:
    """Return what a pass that is not over has gathered so far."""
    feed, state = loop.runner.train_feed, loop.state
    return {
        "opening": feed.opening if feed else {},
        "loader": own_state(loop.train_loader),
        "logged": state.logged.of(Phase.TRAIN).state_dict(),
        "logs": dict(state.logs),
        "step_logs": getattr(state, "step_logs", None),
    }
