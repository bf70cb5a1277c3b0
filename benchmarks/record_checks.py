"""What benchmarks/record.py shows beside speed: agreement with eager, memory, first-use cost."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.record_cases import fitkit_loop
from fitkit import FitLoop, Record

POINTS = 100


def agreement(case: str, backend: Any = "inductor") -> dict[str, float]:
    """Largest difference of one recorded and one eager step from the same state, at 100 points.

    Max-norm of the difference over max-norm of the change the step makes, per kind of variable.
    """
    loop = fitkit_loop(case, 12, Record(backend))
    worst: dict[str, float] = {}
    for _ in range(POINTS):
        loop.fit(epochs=1)
        groups = variables(loop)
        before = {name: copies(tensors) for name, tensors in groups.items()}
        generator = torch.get_rng_state()
        loop.fit(max_steps=1)
        recorded = {name: copies(tensors) for name, tensors in groups.items()}
        for name, tensors in groups.items():
            put_back(tensors, before[name])
        torch.set_rng_state(generator)
        loop.state.request_eager()
        loop.fit(max_steps=1)
        for name, eager in groups.items():
            error = relative_error(recorded[name], eager, before[name])
            worst[name] = max(worst.get(name, 0.0), error)
    return worst


def variables(loop: FitLoop) -> dict[str, list[Tensor]]:
    """Weights and the two moments of Adam."""
    optimizer = next(c.optimizer for c in loop.callbacks if type(c).__name__ == "KerasApply")
    slots = {"momentum": "momentum", "velocity": "velocity"}
    named = {
        group: [v.value for v in optimizer.variables if v.path.endswith(ending)]
        for group, ending in slots.items()
    }
    return {"weights": [v.value for v in loop.model.trainable_variables], **named}


def copies(tensors: list[Tensor]) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in tensors]


@torch.no_grad()
def put_back(tensors: list[Tensor], values: list[Tensor]) -> None:
    for tensor, value in zip(tensors, values, strict=True):
        tensor.copy_(value)


def relative_error(recorded: list[Tensor], eager: list[Tensor], before: list[Tensor]) -> float:
    errors = [
        float(((a - b).abs().max() / (b - old).abs().max().clamp(min=1e-30)).detach())
        for a, b, old in zip(recorded, eager, before, strict=True)
    ]
    return max(errors)


def peak_ratio() -> dict[str, float]:
    """Peak of tensor memory that a step allocates, recorded over eager."""
    peaks = {}
    for name, callbacks in {"eager": [], "inductor": [Record("inductor")]}.items():
        loop = fitkit_loop("MLP", 50, *callbacks)
        loop.fit(max_steps=20)
        peaks[name] = peak_bytes(lambda loop=loop: loop.fit(max_steps=20))
    return {**peaks, "ratio": peaks["inductor"] / peaks["eager"]}


def peak_bytes(run: Callable[[], object]) -> float:
    """The highest sum of allocations less frees while `run` runs, in bytes."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    results: Any = profiler.profiler.kineto_results
    changes = [e for e in results.events() if e.name() == "[memory]"]
    level = peak = 0
    for change in sorted(changes, key=lambda event: event.start_ns()):
        level += change.nbytes()
        peak = max(peak, level)
    return float(peak)


def first_use() -> dict[str, float]:
    """Seconds to trace and to compile the MLP's step in this process."""
    record = Record("inductor")
    loop = fitkit_loop("MLP", 20, record)
    loop.fit(max_steps=5)
    programs = [r.program for r in record.recordings.values() if r.program]
    trained = max(programs, key=lambda program: program.num_replays)
    return {"trace_s": round(trained.trace_s, 2), "compile_s": round(trained.compile_s, 1)}
