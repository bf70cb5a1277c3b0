"""What ran, in which order, and how long it took."""

import time
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from fitkit.loop.bus import owner_of
from fitkit.loop.callback import Callback, Hook
from fitkit.loop.events import Event
from fitkit.loop.interval import positive_int
from fitkit.loop.state import State

if TYPE_CHECKING:
    from fitkit.loop.fit_loop import FitLoop

__all__ = ["EventTrace", "TraceRow"]

_MAX_UNCOUNTED = 1000


@dataclass(slots=True)
class TraceRow:
    """One call of a hook.

    Attributes:
        event: The moment.
        callback: The class of the callback; for a function attached with `loop.on`, its name.
        phase: Phase of the pass; "" outside of one.
        epoch: 0-based.
        batch: 0-based index in the pass; None where there is no batch.
        us: Microseconds the call took on the host, with everything it called.
        own_us: Without the hooks of other callbacks that ran inside it, as in a validation pass.
    """

    event: Event
    callback: str
    phase: str
    epoch: int
    batch: int | None
    us: float = 0.0
    own_us: float = 0.0


@final
class EventTrace(Callback):
    """Record every call of every hook, in order, with its time on the host.

    A loop is traced by one `EventTrace` at a time, the one attached last. Steps that are replayed
    from a recording call no hooks and leave no rows. Work on CUDA goes on after its hook returned.

    Args:
        max_rows: How many rows are kept, the latest ones. The table counts all.
        clock: Nanoseconds, for tests.

    Reads:  state.phase, state.epoch, state.batch_index.
    Writes: nothing; it sits between the bus and the hooks.
    Logs:   nothing.
    Syncs:  never.
    Raises: ConfigError if `max_rows` is no positive int.

    Attributes:
        rows: `TraceRow`s, oldest first.

    Example:
        ```python
        import torch
        from fitkit import EventTrace, FitLoop, TensorLoader, supervised

        model = torch.nn.Linear(4, 1)
        loop = FitLoop(model, TensorLoader(torch.randn(64, 4), torch.randn(64, 1)))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        trace = EventTrace()
        loop.attach(supervised(loss=torch.nn.MSELoss(), optimizer=optimizer), trace)
        loop.fit(epochs=1)
        assert "Forward" in [row.callback for row in trace.rows]
        print(trace)  # event, callback, calls, time
        ```
    """

    def __init__(
        self, max_rows: int = 10_000, *, clock: Callable[[], int] = time.perf_counter_ns
    ) -> None:
        self._clock = clock
        self._calls: list[list[Any]] = []  # like `TraceRow`: the hook for its name, nanoseconds
        self._kept: deque[list[Any]] = deque(maxlen=positive_int("max_rows", max_rows))
        self._running: list[list[Any]] = []  # kept, and not counted yet
        self._totals: dict[tuple[str, Event, str], list[int]] = defaultdict(lambda: [0, 0])
        self._inner_ns = 0  # in the hooks that ran inside the one that is running

    def attach(self, loop: "FitLoop") -> None:
        """Begin to record."""
        loop.bus.add_tracer(self._trace)

    def detach(self, loop: "FitLoop") -> None:
        """Stop recording; what was recorded stays."""
        loop.bus.remove_tracer(self._trace)

    def _trace(self, event: Event, hook: Hook, state: State) -> None:
        phase, batch = getattr(state, "phase", ""), getattr(state, "batch_index", None)
        call: list[Any] = [event, hook, phase, state.epoch, batch, 0, None]
        self._calls.append(call)
        outer_ns, self._inner_ns = self._inner_ns, 0
        clock = self._clock
        begin = clock()
        try:
            hook(state)
        finally:
            call[5] = ns = clock() - begin
            call[6] = ns - self._inner_ns
            self._inner_ns = outer_ns + ns
            if len(self._calls) >= _MAX_UNCOUNTED:
                self._count()

    def _count(self) -> None:
        """Add the calls since the last time to the table; not at each call, beside a short step."""
        calls, self._calls = self._calls, []
        self._kept.extend(calls)
        ended = [call for call in (*self._running, *calls) if call[6] is not None]
        self._running = [call for call in (*self._running, *calls) if call[6] is None]
        for event, hook, phase, _, _, _, own_ns in ended:
            total = self._totals[str(phase), event, _name(hook)]
            total[0] += 1
            total[1] += own_ns

    @property
    def rows(self) -> list[TraceRow]:
        """The latest calls, oldest first."""
        self._count()
        return [
            TraceRow(
                event, _name(hook), str(phase), epoch, batch, *[(ns or 0) / 1e3 for ns in times]
            )
            for event, hook, phase, epoch, batch, *times in self._kept
        ]

    def table(self) -> list[tuple[str, str, str, int, float]]:
        """Return (phase, event, callback, calls, own microseconds), the longest first."""
        self._count()
        rows = [
            (phase, event.name, callback, calls, own_ns / 1e3)
            for (phase, event, callback), (calls, own_ns) in self._totals.items()
        ]
        return sorted(rows, key=lambda row: -row[-1])

    def __str__(self) -> str:
        """Return the table as text."""
        rows = self.table()
        whole = sum(row[-1] for row in rows) or 1.0
        lines = [
            f"{'phase':<8} {'event':<15} {'callback':<20} {'calls':>8} {'ms':>10} {'us/call':>10}"
            f" {'share':>7}"
        ]
        lines += [
            f"{phase:<8} {event:<15} {callback:<20} {calls:>8} {own_us / 1e3:>10.2f}"
            f" {own_us / calls:>10.1f} {own_us / whole:>7.1%}"
            for phase, event, callback, calls, own_us in rows
        ]
        return "\n".join(lines)


def _name(hook: Hook) -> str:
    return type(owner_of(hook)).__name__
