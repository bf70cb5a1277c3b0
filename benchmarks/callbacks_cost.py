"""What each callback adds to a step, eager and recorded, in us of wall time on one thread.

On the guide's MLP with Keras loss, Adam and accuracy, batches of 32. A recorded callback should add
no more than 5 us (curves of every step 10 us) and 1.3 times its bare kernels. Where it is part of
the recorded step, so are these: a hook in the same place computes what the callback must and no
more, compiled by the same backend. Otherwise they are called where the callback calls them, between
two steps.

- Where all that a callback does beside a recorded step is done in its own hooks, the time in these
  is taken, per step of an epoch as long as the guide's, with what it does at the ends of pass and
  epoch; and that in the hook of its kernels, less that of an empty hook.
- Where it is not, whole steps are compared, see `step_times`. What that resolves is told by hooks
  that do nothing, or let 5 or 10 us go by, in loops of their own.

All is done five times (eager once: it has no bar), by steps with loops that are built anew. "holds"
and "above" are said where all five agree; else the bar lies within the resolution, half of what the
five differ by.

A few callbacks look at what no recorded step keeps, and have every hundredth step run eagerly. What
that takes has a line of its own; their lines tell what comes on top of it.

    python -m benchmarks.callbacks_cost [--rounds 40] [--backend inductor] [callback ...]
"""

import argparse
import os
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

os.environ["KERAS_BACKEND"] = "torch"
os.environ.setdefault("KERAS_TORCH_DEVICE", "cpu")

import numpy as np
import torch

from benchmarks.callback_entries import CHECKS, REGISTRY, Entry, is_recorded
from benchmarks.callback_kernels import LOOK_EVERY, PASS_STEPS, Bare
from benchmarks.harness import machine, write_result
from benchmarks.record_cases import fitkit_loop
from benchmarks.step_times import Contestant, differences, in_turns
from fitkit import Callback, FitLoop, Record

EAGER_ROUNDS, RECORDED_ROUNDS, INSTANCES = 40, 40, 5
EAGER_STEPS, RECORDED_STEPS = 8, 40  # so that turns are short
FACTOR = 1.3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("callbacks", nargs="*", default=[*CHECKS, *REGISTRY], metavar="callback")
    parser.add_argument("--rounds", type=int, default=RECORDED_ROUNDS)
    parser.add_argument("--backend", default="inductor", choices=["interpret", "inductor"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    result: dict[str, Any] = {}
    print(f"{'callback':20}{'eager adds':>14}{'recorded':>14}{'its kernels':>14}{'may add':>14}")
    for name in arguments.callbacks:
        measured = cost if entry_of(name).by_steps else in_hooks
        row = {
            "eager": measured(name, None, EAGER_ROUNDS, 1),
            "recorded": measured(name, arguments.backend, arguments.rounds, INSTANCES),
        }
        if name in CHECKS:  # nothing to judge
            del row["recorded"]["verdict"]
        print(line(name, row), flush=True)
        result[name] = row
    if arguments.callbacks == [*CHECKS, *REGISTRY]:
        result |= {"backend": arguments.backend, "machine": machine("cpu")}
        write_result("callbacks_cost", result)


def entry_of(name: str) -> Entry:
    return REGISTRY.get(name) or CHECKS[name]


def cost(
    name: str,
    backend: str | None,
    rounds: int,
    instances: int = 1,
    device: str = "cpu",
) -> dict[str, Any]:
    """Compare whole steps; what the callback adds in us per step, and what its kernels do."""
    entry = entry_of(name)
    steps = RECORDED_STEPS if backend else EAGER_STEPS
    if entry.kind(LOOK_EVERY // 2) != entry.kind(0):  # it looks at a step now and then
        steps = LOOK_EVERY
        rounds = rounds if backend else max(5, rounds * EAGER_STEPS // steps)
    added: dict[str, list[list[float]]] = {"callback": [], "kernels": []}
    for _ in range(instances):
        contestants = on_one_loop(stacks_of(entry), backend, steps, device)
        times = in_turns(contestants, rounds, entry.kind)
        for each, values in added.items():
            values.append(differences(times.get(each, times["bare"]), times["bare"]))
    adds, kernels = ([*map(statistics.median, each)] for each in added.values())
    spread = np.percentile(np.concatenate(added["callback"]), [5, 95]).tolist()
    found = judged(adds, kernels, entry.free_us)
    return found | {"by": "steps", "rounds": rounds, "adds_p5_p95": spread}


def in_hooks(
    name: str,
    backend: str | None,
    rounds: int = 0,
    instances: int = INSTANCES,
    steps: int = PASS_STEPS,
) -> dict[str, Any]:
    """Take the time in the hooks of a callback, of its kernels, of an empty one, per step."""
    entry = entry_of(name)
    stacks = {
        "callback": entry.make(),
        "kernels": [*entry.beside(), entry.kernels() if entry.kernels else Bare(None)],
        "nothing": [*entry.beside(), Bare(None)],
    }
    contestants = on_one_loop(stacks, backend, steps)
    times = [{n: each.time_in_hooks() for n, each in contestants.items()} for _ in range(instances)]
    adds = [each["callback"] for each in times]
    kernels = [each["kernels"] - each["nothing"] for each in times] if entry.kernels else [0.0]
    kernels *= instances // len(kernels)
    return judged(adds, kernels, entry.free_us) | {"by": "hooks"}


def judged(adds: Sequence[float], kernels: Sequence[float], free_us: float) -> dict[str, Any]:
    """Hold what a callback adds against what it may, in every instance."""
    allowed = [free_us + FACTOR * max(each, 0.0) for each in kernels]
    over = differences(adds, allowed)
    verdict = "above" if min(over) > 0 else "holds" if max(over) <= 0 else "within resolution"
    return {
        "adds_us_per_step": statistics.median(adds),
        "kernels_us_per_step": statistics.median(kernels),
        "allowed_us_per_step": statistics.median(allowed),
        "resolution_us": (max(over) - min(over)) / 2,
        "verdict": verdict,
        "instances": {"adds": list(adds), "kernels": list(kernels)},
    }


def line(name: str, row: Mapping[str, Any]) -> str:
    """A row of the table."""
    eager, recorded = row["eager"], row["recorded"]
    figures = f"{eager['adds_us_per_step']:11.1f} us"
    for each in ("adds", "kernels", "allowed"):
        figures += f"{recorded[f'{each}_us_per_step']:11.1f} us"
    resolved = f"+-{recorded['resolution_us']:.1f} us"
    return f"{name:20}{figures}   {resolved:12}{recorded.get('verdict', '')}".rstrip()


def stacks_of(entry: Entry) -> dict[str, list[Callback]]:
    """What stands on the loop: neither callback nor kernels, either of them."""
    bare = list(entry.beside())
    stacks = {"bare": bare, "callback": list(entry.make())}
    return stacks | ({"kernels": [*bare, entry.kernels()]} if entry.kernels else {})


def on_one_loop(
    stacks: Mapping[str, Sequence[Callback]], backend: str | None, steps: int, device: str = "cpu"
) -> dict[str, Contestant]:
    """Put each list of callbacks on the same loop; on one of its own if it changes the program."""
    shared: FitLoop | None = None
    contestants: dict[str, Contestant] = {}
    for name, callbacks in stacks.items():
        loop = shared
        if loop is None or (backend and any(map(is_recorded, callbacks))):
            loop = fitkit_loop("MLP", steps, *([Record(backend)] if backend else []))
            shared = shared or loop
        contestants[name] = Contestant(loop, callbacks, device)
    for each in contestants.values():  # builds, traces and compiles
        each.enter()
        each.loop.fit(max_steps=12)
        rest(each.loop)
    for loop in {each.loop for each in contestants.values() if steps >= LOOK_EVERY}:
        # so that looks come amid a block
        loop.fit(max_steps=(LOOK_EVERY // 2 - loop.state.num_updates - 1) % LOOK_EVERY + 1)
    return contestants


def rest(loop: FitLoop) -> None:
    """Have weights stay as they are: gradients of what is learned vanish, and all is slower."""
    for callback in loop.callbacks:
        if (optimizer := getattr(callback, "optimizer", None)) is not None:
            optimizer.learning_rate = 0.0


if __name__ == "__main__":
    main()
