"""The streams of random numbers a run draws from: those of the process, and those of a loader."""

import random
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch

__all__ = ["process_streams", "restore_process", "restore_streams", "streams_of"]

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
    """Return the states of the streams that belong to parts of a loader, by the path of each."""
    return {path: _state(stream) for path, stream in _own_streams(loader).items()}


def restore_streams(loader: Any, states: Mapping[str, Any]) -> None:
    """Put the streams of a loader back; those it did not have then stay as they are."""
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
        for name, value in cast("dict[str, Any]", getattr(part, "__dict__", {})).items():
            if isinstance(value, _OWN) and all(value is not other for other in found.values()):
                found[f"{path}.{name}"] = value
    return found


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
