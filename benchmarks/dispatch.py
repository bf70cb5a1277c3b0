"""What it costs to fire an event: ns per `emit` with 0, 1, 5 and 20 listeners.

Beside it, in the same rounds: a function that walks a tuple of as many bound methods, which is the
least that a loop over callbacks can cost, and the methods called one after the other in plain code.

    python -m benchmarks.dispatch
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.harness import machine, write_result
from fitkit import Callback, Event, State
from fitkit.loop import EventBus

LISTENERS = (0, 1, 5, 20)
CALLS = 20_000
ROUNDS = 31

Fire = Callable[[Event], None]


class Listener(Callback):
    """Does nothing, so that the call is all there is."""

    def on_batch_end(self, state: State) -> None:
        """Do nothing."""


def main() -> None:
    rows = [measured(count) for count in LISTENERS]
    print(f"{'listeners':>9}{'emit':>10}{'a loop':>10}{'direct':>10}   ns per event")
    for row in rows:
        print(f"{row['listeners']:9}{row['emit']:10.0f}{row['loop']:10.0f}{row['direct']:10.0f}")
    write_result("dispatch", {"unit": "ns per event", "rows": rows, "machine": machine("cpu")})


def measured(count: int) -> dict[str, Any]:
    """Median ns per event of each way; what the loop around the calls costs is taken off."""
    ways = ways_to_fire(count)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, fire in ways.items():
            times[name].append(timed(fire) - timed(None))
    return {"listeners": count} | {name: statistics.median(ns) for name, ns in times.items()}


def ways_to_fire(count: int) -> dict[str, Fire]:
    """`emit`, a bare loop in a function, and a function with `count` calls written out."""
    state = State(torch.nn.Identity(), device=torch.device("cpu"))
    callbacks = [Listener() for _ in range(count)]
    bus = EventBus(state)
    bus.build(callbacks)
    hooks = tuple(callback.on_batch_end for callback in callbacks)

    def loop(event: Event) -> None:
        for hook in hooks:
            hook(state)

    return {"emit": bus.emit, "loop": loop, "direct": written_out(callbacks, state)}


def written_out(callbacks: list[Listener], state: State) -> Fire:
    names = [f"c{index}" for index in range(len(callbacks))]
    lines = [f"    {name}.on_batch_end(state)" for name in names] or ["    pass"]
    scope: dict[str, Any] = dict(zip(names, callbacks, strict=True)) | {"state": state}
    exec("\n".join(["def direct(event):", *lines]), scope)
    return scope["direct"]


def timed(fire: Fire | None) -> float:
    """CPU ns per call of `fire`, or of a loop that calls nothing."""
    event = Event.BATCH_END
    begin = time.process_time_ns()
    if fire is None:
        for _ in range(CALLS):
            pass
    else:
        for _ in range(CALLS):
            fire(event)
    return (time.process_time_ns() - begin) / CALLS


if __name__ == "__main__":
    main()
