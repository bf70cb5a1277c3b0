"""A measurement of the speed of training that ends by itself."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np

from fitkit.loop.callback import Callback
from fitkit.loop.events import Phase
from fitkit.loop.interval import positive_int
from fitkit.loop.state import State
from fitkit.watch.stopwatch import Stopwatch, check_warmup

__all__ = ["Benchmark", "BenchmarkResult"]


@dataclass(frozen=True, slots=True)
class BenchmarkResult:
    """Speed over several windows: the median, and how far the windows are apart.

    Attributes:
        samples_per_s: Median over the windows; `_p5` and `_p95` are their percentiles.
        step_ms: Milliseconds per step, mean of a window, median over the windows.
        data_wait_share: Which part of the time went by waiting for data, 0 to 1.
        steps: Steps per window.
        warmup: Steps before the first window.
        num_samples: Samples in all windows.
        seconds: The length of each window, in order.
        device: Where it was measured.
    """

    samples_per_s: float
    samples_per_s_p5: float
    samples_per_s_p95: float
    step_ms: float
    step_ms_p5: float
    step_ms_p95: float
    data_wait_share: float
    steps: int
    warmup: int
    num_samples: int
    seconds: tuple[float, ...]
    device: str

    def __str__(self) -> str:
        """Return two lines for people."""
        return (
            f"{self.samples_per_s:,.0f} samples/s "
            f"(p5 {self.samples_per_s_p5:,.0f}, p95 {self.samples_per_s_p95:,.0f}), "
            f"{self.step_ms:.3f} ms per step "
            f"(p5 {self.step_ms_p5:.3f}, p95 {self.step_ms_p95:.3f})\n"
            f"median of {len(self.seconds)} windows of {self.steps} steps after {self.warmup} "
            f"warm-up steps on {self.device}; {self.data_wait_share:.1%} waiting for data"
        )


@final
class Benchmark(Callback):
    """Measure `repeats` windows of `steps` training steps after a warm-up, then stop the run.

    The time of a window is that of its training passes, with data and all callbacks; validation
    and prediction within are not counted. The run must be long enough: give `fit` many epochs.

    Args:
        steps: Batches per window.
        warmup: Batches before the first window: caches, lazy set-up, recording.
        repeats: Windows.
        clock: Seconds, for tests; on CUDA the device times the windows.

    Reads:  state.batch_size, state.data_wait_s.
    Writes: asks for a stop when the last window is complete.
    Logs:   nothing.
    Syncs:  once, on CUDA, when the last window is complete; never on the CPU.
    Raises: ConfigError if a count is out of range; RuntimeError if `result` is read before the
        last window is complete.

    Attributes:
        result: A `BenchmarkResult`; its text is meant for people.

    Example:
        ```python
        import torch
        from fitkit import Benchmark, FitLoop, TensorLoader, supervised

        model = torch.nn.Linear(4, 1)
        loop = FitLoop(model, TensorLoader(torch.randn(640, 4), torch.randn(640, 1)))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        benchmark = Benchmark(steps=20, warmup=5, repeats=3)
        loop.attach(supervised(loss=torch.nn.MSELoss(), optimizer=optimizer), benchmark)
        loop.fit(epochs=1000)  # 65 steps are run
        print(benchmark.result)
        ```
    """

    only_watches = True

    def __init__(
        self,
        steps: int = 100,
        *,
        warmup: int = 20,
        repeats: int = 5,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._steps = positive_int("steps", steps)
        self._warmup = check_warmup(warmup)
        self._repeats = positive_int("repeats", repeats)
        self._watch = Stopwatch(clock)
        self._result: BenchmarkResult | None = None
        self._num_done = 0
        self._samples = [0]
        self._wait_s = self._waited_s = 0.0

    @property
    def result(self) -> BenchmarkResult:
        """What was measured."""
        if self._result is None:
            needed = self._warmup + self._steps * self._repeats
            raise RuntimeError(
                f"the benchmark has no result: {self._num_done} of {needed} steps were run\n"
                f"Give fit() more epochs, or at least max_steps={needed}."
            )
        return self._result

    def on_fit_begin(self, state: State) -> None:
        """Begin with the warm-up."""
        self._result = None
        self._num_done = 0
        self._samples, self._wait_s = [0], 0.0
        self._watch.clear(state.device)

    def on_pass_begin(self, state: State) -> None:
        """Start the watch, or stop it for a pass that is not training."""
        self._watch.enter(state)
        if state.phase is Phase.TRAIN:
            self._waited_s = 0.0

    def on_batch_end(self, state: State) -> None:
        """Count the step; end a window or the run."""
        if state.phase is not Phase.TRAIN:
            return
        self._num_done += 1
        self._wait_s += state.data_wait_s - self._waited_s
        self._waited_s = state.data_wait_s
        if self._num_done <= self._warmup:
            self._samples, self._wait_s = [0], 0.0
            self._watch.restart()
            return
        self._samples[-1] += state.batch_size
        if (self._num_done - self._warmup) % self._steps == 0:
            self._watch.lap()
            if len(self._samples) == self._repeats:
                self._finish(state)
            self._samples.append(0)

    def on_pass_end(self, state: State) -> None:
        """Stop the watch, or go on with the interrupted pass."""
        self._watch.leave()

    def _finish(self, state: State) -> None:
        seconds = np.array(self._watch.read())
        percentiles = [50, 5, 95]
        speed = np.percentile(np.array(self._samples) / seconds, percentiles).tolist()
        step_ms = np.percentile(1e3 * seconds / self._steps, percentiles).tolist()
        self._result = BenchmarkResult(
            *speed,
            *step_ms,
            data_wait_share=self._wait_s / float(seconds.sum()),
            steps=self._steps,
            warmup=self._warmup,
            num_samples=sum(self._samples),
            seconds=tuple(seconds.tolist()),
            device=str(state.device),
        )
        state.request_stop(f"benchmark: {self._repeats} windows of {self._steps} steps measured")
