"""What benchmarks/record.py shows beside speed and agreement: memory, first-use cost."""

from collections.abc import Callable
from typing import Any

from torch.profiler import ProfilerActivity, profile

from benchmarks.record_agreement import variables
from benchmarks.record_cases import fitkit_loop
from fitkit import Record


def peak_ratio() -> dict[str, float]:
    """Peak of the tensors that a run holds, recorded over eager: its variables and a step's own.

    Steps that Record runs both ways (1, 2, 4, ...) keep copies of what they change; shown apart.
    """
    peaks = {}
    for name, callbacks in {"eager": [], "inductor": [Record("inductor")]}.items():
        loop = fitkit_loop("MLP", 200, *callbacks)
        loop.fit(max_steps=70)  # the next step that is run both ways is about number 130
        kept = sum(t.numel() * t.element_size() for each in variables(loop).values() for t in each)
        peaks[name] = kept + peak_bytes(lambda loop=loop: loop.fit(max_steps=20))
        peaks[f"{name}, both ways"] = kept + peak_bytes(lambda loop=loop: loop.fit(max_steps=60))
    ratio = peaks["inductor"] / peaks["eager"]
    return {**peaks, "ratio": ratio, "both ways": peaks["inductor, both ways"] / peaks["eager"]}


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
