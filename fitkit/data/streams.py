"""The streams of random numbers a run draws from, and what the samplers of a user keep."""

import random
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, cast

import numpy as np
import torch

from fitkit.data.source import is_pydataset

__all__ = ["is_stateful", "process_streams", "restore_process", "restore_streams", "streams_of"]

_OWN = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)


def process_streams() -> dict[str, Any]:
    """Return the states of the streams shared by the process: Python, numpy, torch on the CPU."""
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(legacy=False),
        "torch": torch.get_rng_state(),
    }


def restore_process(states: Mapping[str, Any]) -> None:
    """Put the shared streams back."""
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"].cpu())  # sync: never, a state lies on the CPU


def streams_of(loader: Any) -> dict[str, Any]:
    """Return the states of the streams that belong to parts of a loader, by the path of each.

    So with what a sampler of a user's own class keeps from pass to pass: its numbers, its lists of
    numbers, its arrays and tensors. What has a `state_dict()`, a sampler or a PyDataset, says
    itself what it keeps.
    """
    streams = {path: _state(stream) for path, stream in _own_streams(loader).items()}
    return streams | {path: _kept_by(part) for path, part in _keepers(loader).items()}


def restore_streams(loader: Any, states: Mapping[str, Any]) -> None:
    """Put the streams of a loader back; those it did not have then stay as they are."""
    for path, part in _keepers(loader).items():
        if path in states:
            _give_back(part, states[path])
    for path, stream in _own_streams(loader).items():
        if path in states:
            _set_state(stream, states[path])


def parts_of(loader: Any) -> dict[str, Any]:
    """Return the parts of a loader that may hold a stream, by path; a loader within another too."""
    found: dict[str, Any] = {"loader": loader}
    for path in ("loader", "dataset", "sampler", "batch_sampler", "batch_sampler.sampler"):
        part = loader
        for name in path.split("."):
            part = getattr(part, name, None)
        if part is not None and all(part is not other for other in found.values()):
            found |= (
                {f"{path}.{k}": v for k, v in parts_of(part).items()}
                if path == "loader"
                else {path: part}
            )
    return found


def _own_streams(loader: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path, part in parts_of(loader).items():
        for name, value in _attributes(part).items():
            if isinstance(value, _OWN) and all(value is not other for other in found.values()):
                found[f"{path}.{name}"] = value
    return found


def _keepers(loader: Any) -> dict[str, Any]:
    """Return the samplers of a user's own classes, and a PyDataset that keeps its state."""
    return {
        path: part
        for path, part in parts_of(loader).items()
        if ("sampler" in path and not _is_of_library(part))
        or (is_pydataset(part) and is_stateful(part))
    }


def _is_of_library(part: Any) -> bool:
    return type(part).__module__.partition(".")[0] in ("torch", "torchdata", "keras", "fitkit")


def _attributes(part: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", getattr(part, "__dict__", {}))


def _kept_by(part: Any) -> dict[str, Any]:
    if is_stateful(part):
        return {"state_dict": part.state_dict()}
    kept: dict[str, Any] = {}
    for name, value in _attributes(part).items():
        if isinstance(value, list) and _are_numbers(cast("list[Any]", value)):
            kept[name] = np.array(cast("list[Any]", value))
        elif isinstance(value, np.ndarray | torch.Tensor):
            kept[name] = deepcopy(cast("Any", value))
        elif isinstance(value, int | float):
            kept[name] = value
    return kept


def _give_back(part: Any, kept: Mapping[str, Any]) -> None:
    if is_stateful(part):
        part.load_state_dict(kept["state_dict"])
        return
    held = _attributes(part)
    for name in kept.keys() & held.keys():
        value, saved = held[name], kept[name]
        if isinstance(value, int | float):
            setattr(part, name, saved)
        elif len(value) == len(saved):  # in place: it may be somebody else's as well
            is_list = isinstance(value, list)
            value[:] = saved.tolist() if is_list else saved  # sync: never, a list is an array here


def is_stateful(part: Any) -> bool:
    """Whether something keeps its own state, as torch's modules and optimizers do."""
    return all(callable(getattr(part, name, None)) for name in ("state_dict", "load_state_dict"))


def _are_numbers(values: list[Any]) -> bool:
    return all(type(value) is int for value in values) or all(type(v) is float for v in values)


def _state(stream: Any) -> Any:
    if isinstance(stream, torch.Generator):
        return stream.get_state()
    if isinstance(stream, np.random.Generator):
        return stream.bit_generator.state
    return (
        stream.get_state(legacy=False)
        if isinstance(stream, np.random.RandomState)
        else stream.getstate()
    )


def _set_state(stream: Any, state: Any) -> None:
    if isinstance(stream, torch.Generator):
        stream.set_state(state.cpu())  # sync: never, a state lies on the CPU
    elif isinstance(stream, np.random.Generator):
        stream.bit_generator.state = state
    elif isinstance(stream, np.random.RandomState):
        stream.set_state(state)
    else:
        stream.setstate(state)
