"""What each callback adds to a step, eager and recorded, in us of CPU time on one thread.

On the guide's MLP with Keras loss, Adam and accuracy, batches of 32. In every round one and the
same loop runs without the callback, with it, and with its bare kernels (a hook that computes what
the callback must, and no more, in its place: between two steps nothing is in a cache). A callback
that is part of the recorded step makes another program, and has a loop of its own. A recorded
callback should add no more than 5 us and 1.3 times its kernels.

A few callbacks look at what no recorded step keeps, and have every hundredth step run eagerly; so
do their kernels. What the method cannot resolve shows in the line of a hook that does nothing: a
machine that others use tells whole steps apart by tens of us. So where all that a callback does
beside a recorded step is done in its own hooks, the time in these is taken as well, per step of an
epoch as long as the guide's, with what it does at the ends of pass and epoch; that is what is held
against the time in the hook of its kernels, less that of the empty hook.

    python -m benchmarks.callbacks_cost [--rounds 21] [--backend inductor] [callback ...]
"""

import argparse
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

os.environ["KERAS_BACKEND"] = "torch"
os.environ.setdefault("KERAS_TORCH_DEVICE", "cpu")

import numpy as np

import fitkit
from benchmarks.callback_kernels import (
    NOTHING,
    REGISTRY,
    WINDOW,
    Bare,
    Entry,
    Looks,
    is_recorded,
)
from benchmarks.harness import compare, spread, write_result
from benchmarks.record_cases import fitkit_loop
from fitkit import Callback, Event, FitLoop, Record
from fitkit.loop.callback import Hook
from fitkit.loop.origin import owner_of

EAGER_STEPS, RECORDED_STEPS, EPOCH_STEPS = 50, 400, 1563
HOOK_ROUNDS = 7
ONCE_PER_FIT = {Event.FIT_BEGIN, Event.FIT_END, Event.CLOSE}
FREE_US, FACTOR = 5.0, 1.3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("callbacks", nargs="*", default=list(REGISTRY), metavar="callback")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--backend", default="inductor", choices=["interpret", "inductor"])
    arguments = parser.parse_args()
    modes: dict[str, str | None] = {"eager": None, "recorded": arguments.backend}
    result: dict[str, Any] = {}
    print(
        f"{'callback':16}"
        + "".join(f"{mode + ' adds':>16}" for mode in modes)
        + "    in hooks   kernels"
    )
    for name in ["nothing", *arguments.callbacks]:
        result[name] = row = {
            mode: cost(name, backend, arguments.rounds) for mode, backend in modes.items()
        }
        row["recorded"] |= in_hooks(name, arguments.backend)
        print(line(name, row), flush=True)
    if arguments.callbacks == list(REGISTRY):
        result["backend"] = arguments.backend
        write_result("callbacks_cost", result)


def cost(
    name: str, backend: str | None, rounds: int, steps: int | None = None, device: str = "cpu"
) -> dict[str, Any]:
    """Time one callback; the figures of `compare`, and what it adds in us per step."""
    entry = REGISTRY.get(name, NOTHING)
    steps = steps or (RECORDED_STEPS if backend else EAGER_STEPS)
    bare = list(entry.beside())
    stacks = {"bare": bare, name: list(entry.make())}
    if entry.kernels:
        stacks["kernels"] = [*bare, *([Looks()] if entry.looks else []), Bare(entry.kernels)]
    runs = on_one_loop(stacks, backend, steps)
    compared = compare(
        {each: run.fit for each, run in runs.items()},
        steps=steps,
        rounds=rounds,
        warmup_rounds=2,
        device=device,
        before=lambda each: runs[each].enter(),
    )
    clock = "cpu_us_per_step" if device == "cpu" else "wall_us_per_step"
    times = {each: compared[clock][each]["all"] for each in stacks}
    added = differences(times[name], times["bare"])
    kernels = differences(times["kernels"], times["bare"]) if entry.kernels else [0.0]
    compared["adds_us_per_step"] = statistics.median(added)
    compared["adds_p5_p95"] = np.percentile(added, [5, 95]).tolist()
    return compared | allowed(statistics.median(kernels))


def allowed(kernels_us: float) -> dict[str, float]:
    """What a recorded callback may add, by what its kernels take."""
    kernels_us = max(kernels_us, 0.0)
    return {
        "kernels_us_per_step": kernels_us,
        "allowed_us_per_step": FREE_US + FACTOR * kernels_us,
    }


def in_hooks(name: str, backend: str) -> dict[str, Any]:
    """What it takes in its own hooks, if that is all; this goes before the difference of steps."""
    entry = REGISTRY.get(name, NOTHING)
    if not entry.is_in_hooks:
        return {}
    times = hook_times(entry, backend)
    callback, kernels, nothing = (times[each]["median"] for each in times)
    return {"hooks": times, "in_hooks_us_per_step": callback} | allowed(kernels - nothing)


def hook_times(entry: Entry, backend: str, steps: int = EPOCH_STEPS) -> dict[str, Any]:
    """Wall time in us per step in the hooks of a callback, of its kernels, of an empty hook."""
    stacks = {
        "callback": list(entry.make()),
        "kernels": [Bare(entry.kernels)],
        "nothing": [Bare(None)],
    }
    runs = on_one_loop(stacks, backend, steps)
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(HOOK_ROUNDS):
        for name, run in runs.items():
            run.enter()
            taken[name].append(run.time_in_hooks() / steps)
    return {name: spread(values) for name, values in taken.items()}


def differences(times: Sequence[float], bare: Sequence[float]) -> list[float]:
    """What is added, round by round."""
    return [a - b for a, b in zip(times, bare, strict=True)]


def line(name: str, row: dict[str, Any]) -> str:
    """A row of the table."""
    recorded = row["recorded"]
    adds = "".join(f"{each['adds_us_per_step']:13.1f} us" for each in row.values())
    hooks = f"{recorded['in_hooks_us_per_step']:9.1f} us" if "hooks" in recorded else " " * 12
    verdict = "" if is_held(recorded) else f"   above {recorded['allowed_us_per_step']:.1f} us"
    return f"{name:16}{adds}{hooks}{recorded['kernels_us_per_step']:7.1f} us{verdict}"


def is_held(recorded: Mapping[str, Any]) -> bool:
    """Whether it adds no more than it may."""
    added = recorded.get("in_hooks_us_per_step", recorded["adds_us_per_step"])
    return added <= recorded["allowed_us_per_step"]


def on_one_loop(
    stacks: Mapping[str, Sequence[Callback]], backend: str | None, steps: int
) -> dict[str, "Stacked"]:
    """Put each list of callbacks on the same loop; on one of its own if it changes the program."""
    shared: FitLoop | None = None
    runs: dict[str, Stacked] = {}
    for name, callbacks in stacks.items():
        if shared is None or (backend and any(map(is_recorded, callbacks))):
            record = [Record(backend)] if backend else []
            loop = fitkit_loop("MLP", steps, *record)
            shared = shared or loop
        else:
            loop = shared
        runs[name] = Stacked(loop, callbacks)
    for run in runs.values():  # builds, traces and compiles; whole windows
        run.enter(num_steps=12)
    return runs


class Stacked:
    """A loop, and callbacks that are attached to it while they are timed."""

    def __init__(self, loop: FitLoop, callbacks: Sequence[Callback]) -> None:
        self._loop, self._callbacks = loop, callbacks
        self._own = list(loop.callbacks)

    def enter(self, num_steps: int = 2 * WINDOW) -> None:
        """Attach them, and detach those of others; `Record` looks at what has changed."""
        there = self._loop.callbacks
        for callback in there:
            if callback not in self._own and callback not in self._callbacks:
                self._loop.detach(callback)
        self._loop.attach(*[each for each in self._callbacks if each not in there])
        self._loop.fit(max_steps=num_steps)

    def fit(self, num_steps: int) -> None:
        """Train."""
        first = self._loop.state.num_batches
        while self._loop.state.num_batches - first < num_steps:
            self._loop.fit(epochs=1)

    def time_in_hooks(self) -> float:
        """Train an epoch; return the us in the hooks of the callbacks, but for those of a fit."""
        own, spent_ns = set(self._callbacks), 0

        def trace(event: Event, hook: Hook, state: fitkit.State) -> None:
            nonlocal spent_ns
            begin = time.perf_counter_ns()
            hook(state)
            took_ns = time.perf_counter_ns() - begin
            if owner_of(hook) in own and event not in ONCE_PER_FIT:
                spent_ns += took_ns

        self._loop.bus.add_tracer(trace)
        self._loop.fit(epochs=1)
        self._loop.bus.remove_tracer(trace)
        return spent_ns / 1e3


if __name__ == "__main__":
    main()
