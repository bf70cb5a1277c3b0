"""Where the time of training steps goes, by the clock of the host."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Literal, cast, final

from fitkit.loop.bus import owner_of
from fitkit.loop.callback import Callback, Hook
from fitkit.loop.events import ACTIONS, BATCH_EVENTS, Event, Phase
from fitkit.loop.state import State
from fitkit.watch.text_table import text_table

__all__ = ["StepRow", "StepTable", "StepTimes"]

Kind = Literal["action", "metrics", "callback", "data", "recorded", "timing", "loop"]


@final
@dataclass(frozen=True, slots=True)
class StepRow:
    """What one callback takes at one event, or what lies between the callbacks.

    Attributes:
        event: The event; "" for what is no event.
        callback: The class of the callback, or what it is instead.
        kind: "action", "metrics" (UPDATE_METRICS), "recorded" and "data" (waiting for the loader)
            are what a loop written by hand has, too; "callback" is every other hook; "timing" is
            what looking at the clock takes, measured on a hook that does nothing; "loop" is all
            that is left.
        calls: Of the hook, in all steps.
        us: Microseconds per step, without other hooks inside.
    """

    event: str
    callback: str
    kind: Kind
    calls: int
    us: float


@final
@dataclass(frozen=True, slots=True)
class StepTable:
    """The time of a training step, split up; the rows add up to `step_us`.

    Attributes:
        rows: In the order of events, then data, recorded step, timing and loop.
        num_steps: How many steps (batches) were timed.
        num_replayed: Turns that were replayed from a recording, their callbacks in one.
        step_us: Microseconds per step, validations and saves left out.
        device: Where the model is. On a GPU kernels go on after the hook that has started them.
    """

    rows: tuple[StepRow, ...]
    num_steps: int
    num_replayed: int
    step_us: float
    device: str

    def share(self, *kinds: Kind) -> float:
        """Return which part of a step rows of these kinds take, 0 to 1."""
        return sum(row.us for row in self.rows if row.kind in kinds) / (self.step_us or 1.0)

    @property
    def own_share(self) -> float:
        """Which part of a step is fitkit's own, 0 to 1: the loop, and all other callbacks."""
        return self.share("loop", "callback")

    def __str__(self) -> str:
        """Return the table as text."""
        whole = self.step_us or 1.0
        cells = [
            (
                f"{row.event} [A]" if row.kind == "action" else row.event,
                row.callback,
                str(row.calls or ""),
                f"{row.us:,.1f}",
                f"{row.us / whole:.1%}",
            )
            for row in self.rows
        ]
        lines = text_table(("event", "callback", "calls", "us/step", "share"), cells)
        lines.append(
            f"one step: {self.step_us:,.1f} us, the mean of {self.num_steps} on {self.device}; "
            f"fitkit's own: {self.own_share:.1%} (loop {self.share('loop'):.1%}, callbacks but for "
            f"actions and metrics {self.share('callback'):.1%})"
        )
        if self.num_replayed:
            lines.append(
                f"{self.num_replayed} steps were replayed from a recording: what their callbacks "
                "do is one row, '(recorded step)'"
            )
        return "\n".join(lines)


class StepTimes:
    """Times the hooks of training steps as a tracer of the bus.

    A step lasts from one BATCH_END of the callback that owns this to the next. What happens
    outside of batches (validation, saving, the ends of passes) is left out.

    Args:
        clock: Nanoseconds, for tests.
    """

    def __init__(self, *, clock: Callable[[], int] = time.perf_counter_ns) -> None:
        self._clock = clock
        self._inner = [0]  # what hooks inside of the running ones took; at the bottom, all of them
        self._is_outside = False
        self._hooks: dict[tuple[Event, str], list[int]] = {}  # calls, nanoseconds; in list order
        self.restart()

    def restart(self) -> None:
        """Forget what was timed so far; a step begins here."""
        for total in self._hooks.values():
            total[:] = 0, 0
        self._outside = self._region = self._num_forward = self._num_replayed = 0
        self._began = self._clock()

    def trace(self, event: Event, hook: Hook, state: State) -> None:
        """Call one hook."""
        if self._is_outside:
            hook(state)
            return
        counts = event in BATCH_EVENTS and state.phase is Phase.TRAIN
        self._is_outside = not counts
        self._inner.append(0)
        begin = self._clock()
        try:
            hook(state)
        finally:
            took = self._clock() - begin
            own = took - self._inner.pop()
            self._inner[-1] += took
            self._is_outside = False
            if counts:
                total = self._hooks.setdefault((event, type(owner_of(hook)).__name__), [0, 0])
                total[0] += 1
                total[1] += own
                self._num_forward += event is Event.FORWARD
            else:
                self._outside += own

    @property
    def num_ns(self) -> int:
        """What all hooks took so far."""
        return sum(took for _, took in self._hooks.values())

    @contextmanager
    def region(self) -> Generator[None]:
        """Run the step region of a batch or turn."""
        begin, hooks, num_forward = self._clock(), self._inner[-1], self._num_forward
        yield
        if num_forward == self._num_forward and not self._is_outside:  # no hook ran the model
            self._region += self._clock() - begin - (self._inner[-1] - hooks)
            self._num_replayed += 1

    def table(self, num_steps: int, wait_s: float, device: str) -> StepTable:
        """Return the table of the steps since the last `restart`.

        Args:
            num_steps: How many there were.
            wait_s: Seconds of them in which the loop has waited for data.
            device: Where the model is.
        """
        whole = self._clock() - self._began - self._outside
        rows: list[tuple[str, str, Kind, int, float]] = [
            (event.name, name, _kind(event), calls, took)
            for (event, name), (calls, took) in sorted(
                self._hooks.items(), key=lambda item: item[0][0]
            )
            if calls
        ]
        rows.append(("", "(waiting for data)", "data", 0, 1e9 * wait_s))
        if self._num_replayed:
            rows.append(("", "(recorded step)", "recorded", self._num_replayed, self._region))
        num_calls = sum(calls for calls, _ in self._hooks.values())
        rows.append(("", "(timing itself)", "timing", 0, num_calls * _cost(self._clock)))
        rows.append(("", "(loop)", "loop", 0, whole - sum(row[-1] for row in rows)))
        per_step = 1e-3 / max(num_steps, 1)
        found = (StepRow(e, name, kind, n, took * per_step) for e, name, kind, n, took in rows)
        return StepTable(tuple(found), num_steps, self._num_replayed, whole * per_step, device)


def _kind(event: Event) -> Kind:
    if event is Event.UPDATE_METRICS:
        return "metrics"
    return "action" if event in ACTIONS[Phase.TRAIN] else "callback"


class _Idle(Callback):
    def on_forward(self, state: State) -> None:
        """Do nothing."""


def _cost(clock: Callable[[], int]) -> float:
    """Return what the timing of a hook adds outside of its own time, nanoseconds."""
    hook, state = _Idle().on_forward, cast(State, SimpleNamespace(phase=Phase.TRAIN))
    found: list[float] = []
    for _ in range(5):
        times = StepTimes(clock=clock)
        begin = clock()
        for _ in range(50):
            times.trace(Event.FORWARD, hook, state)
        found.append((clock() - begin - times.num_ns) / 50)
    return max(min(found), 0.0)
