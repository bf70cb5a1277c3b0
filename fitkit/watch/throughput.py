"""How fast training is."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import quantiles
from typing import final

from fitkit.loop.callback import Callback
from fitkit.loop.events import Phase
from fitkit.loop.interval import Interval
from fitkit.loop.state import State
from fitkit.watch.stopwatch import Stopwatch, check_warmup

__all__ = ["Throughput"]

_MAX_LAPS, _MAX_UNREAD = 100_000, 10_000


@dataclass(slots=True)
class _Sum:
    """What was measured since some moment."""

    seconds: float = 0.0
    wait_s: float = 0.0
    num_samples: int = 0
    laps: deque[float] = field(default_factory=lambda: deque(maxlen=_MAX_LAPS))

    def add(self, laps: Sequence[float], num_samples: int, wait_s: float) -> None:
        self.seconds += sum(laps)
        self.wait_s += wait_s
        self.num_samples += num_samples
        self.laps.extend(laps)

    def logs(self) -> dict[str, float]:
        if not self.seconds:
            return {}
        laps = self.laps if len(self.laps) > 1 else [*self.laps] * 2  # a quantile is between two
        twentieths = quantiles(laps, n=20, method="inclusive")
        return {
            "speed/samples_per_s": self.num_samples / self.seconds,
            "speed/step_ms": 1e3 * twentieths[9],
            "speed/step_ms_p95": 1e3 * twentieths[18],
            "speed/data_wait_share": self.wait_s / self.seconds,
        }


@final
class Throughput(Callback):
    """Measure the speed of training, warm-up and other passes left out.

    A step lasts from one BATCH_END to the next (the first of a pass from PASS_BEGIN), with data
    and all callbacks. Passes of validation and prediction within are not counted.

    Args:
        every: How long a window is: 100 updates, "1 epoch", "10 minutes".
        warmup: Steps at the beginning of each call of `fit` that are not measured.
        clock: Seconds, for tests; on CUDA the device times the steps.

    Reads:  state.batch_size, state.data_wait_s.
    Writes: state.logs, after each window, and over the whole pass at PASS_END.
    Logs:   speed/samples_per_s; speed/step_ms and speed/step_ms_p95, the median and the 95th
        percentile (of the last 100,000 steps, if a pass has more); speed/data_wait_share, from 0
        to 1. Nothing while all steps are warm-up.
    Syncs:  on CUDA once per window and per 10,000 steps; never on the CPU.
    Raises: ConfigError if `every` is no interval, or `warmup` no whole number of at least 0.

    Example:
        ```python
        import torch
        from fitkit import FitLoop, TensorLoader, Throughput, supervised

        model = torch.nn.Linear(4, 1)
        loop = FitLoop(model, TensorLoader(torch.randn(640, 4), torch.randn(640, 1)))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        loop.attach(supervised(loss=torch.nn.MSELoss(), optimizer=optimizer), Throughput())
        assert loop.fit(epochs=2)["speed/samples_per_s"][-1] > 0
        ```
    """

    only_watches = True

    def __init__(
        self,
        every: int | str = 100,
        *,
        warmup: int = 10,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._interval = Interval.parse(every)
        self._warmup = check_warmup(warmup)
        self._watch = Stopwatch(clock)
        self._num_left = self._warmup  # steps of the warm-up
        self._look_at = 1  # the number of laps at which it may be time to read them
        self._window, self._pass = _Sum(), _Sum()
        self._num_samples, self._waited_s = 0, 0.0  # at the last reading

    def on_fit_begin(self, state: State) -> None:
        """Begin with the warm-up."""
        self._num_left = self._warmup
        self._watch.clear(state.device)
        self._interval.start(state)

    def on_pass_begin(self, state: State) -> None:
        """Start the watch, or stop it for a pass that is not training."""
        self._watch.enter(state)
        if state.phase is Phase.TRAIN:
            self._look_at = 1
            self._window, self._pass = _Sum(), _Sum()
            self._num_samples, self._waited_s = state.num_samples, 0.0

    def on_batch_end(self, state: State) -> None:
        """Time the step; all else waits for the end of the window."""
        if self._watch.lap() >= self._look_at:
            self._look(state)

    def on_pass_end(self, state: State) -> None:
        """Log the speed of the whole pass, or go on with the interrupted one."""
        if state.phase is Phase.TRAIN:
            self._take_laps(state)
            state.logs.update(self._pass.logs())
        self._watch.leave()
        if state.phase is Phase.TRAIN:
            self._watch.restart()

    def _look(self, state: State) -> None:
        """Read if it is time; say after how many laps it can be next."""
        if len(self._watch) >= (self._num_left or _MAX_UNREAD) or self._interval.due(state):
            self._read(state)
        soonest = len(self._watch) + self._interval.updates_left(state)  # a lap is no more than one
        self._look_at = min(soonest, self._num_left or _MAX_UNREAD)

    def _read(self, state: State) -> None:
        self._take_laps(state)
        if self._interval.due(state):
            self._interval.mark(state)
            state.logs.update(self._window.logs())
            self._window = _Sum()

    def _take_laps(self, state: State) -> None:
        """Add what was measured since the last time, unless it was warm-up."""
        laps = self._watch.read()
        num_samples, self._num_samples = state.num_samples - self._num_samples, state.num_samples
        wait_s, self._waited_s = state.data_wait_s - self._waited_s, state.data_wait_s
        if self._num_left:
            self._num_left -= len(laps)
            return
        for each in (self._window, self._pass):
            each.add(laps, num_samples, wait_s)
