"""What a step is made of: a table by the clock, and a trace of `torch.profiler`."""

import contextlib
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TextIO, final

from fitkit.loop.callback import TRAIN_ONLY, Callback
from fitkit.loop.interval import positive_int
from fitkit.loop.state import State
from fitkit.watch.console import Console
from fitkit.watch.step_context import StepContext
from fitkit.watch.step_times import StepTable, StepTimes
from fitkit.watch.trace_files import Tracing

if TYPE_CHECKING:
    from fitkit.loop.fit_loop import FitLoop

__all__ = ["Profile"]


@final
class Profile(Callback):
    """Time the callbacks of some updates, trace some more with `torch.profiler`, print a table.

    Counted in updates: `wait`, then `active` by the clock alone, then `warmup` and `active` with
    the profiler on; so the table is of steps that the profiler does not slow down. In the trace
    every call of a hook is a range named after event and callback ("FORWARD Forward"), inside of
    "step region" and of the profiler's own "ProfilerStep#n". Of a step that `Record` replays there
    is the one range, "step region". All other updates cost nothing; an `EventTrace` has no rows
    of those that are profiled.

    The trace goes to `profile/` in the run_dir, where TensorBoard's plug-in (the package
    torch-tb-profiler) looks for it; https://ui.perfetto.dev opens it, too. Beside it are the table
    as text and, on CUDA, a snapshot of the memory for https://pytorch.org/memory_viz.

    Args:
        active: How many updates are timed, and how many are traced.
        wait: How many updates go before: caches, lazy set-up, recording, compiling.
        warmup: How many updates the profiler runs without keeping anything.
        repeat: How often all that is done in a call of `fit`.
        file: Where the table is printed; default is standard output.

    Reads:  state.data_wait_s; the clock.
    Writes: files, from the main process only.
    Logs:   nothing.
    Syncs:  never; at the end of a trace the profiler waits for the device.
    Raises: ConfigError if a count is no positive int, or for a second Profile. A disk that fails,
        another profiler that runs, a run that is too short are warnings.

    Attributes:
        tables: A `StepTable` of each time, with `rows`, `step_us` and `own_share`.
        traces: The files, in order.

    Example:
        ```python
        import tempfile

        import torch
        from fitkit import FitLoop, Profile, TensorLoader, supervised

        model = torch.nn.Linear(4, 1)
        data = TensorLoader(torch.randn(640, 4), torch.randn(640, 1), batch_size=32)
        loop = FitLoop(model, data, run_dir=tempfile.mkdtemp())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        profile = Profile(active=3, wait=5, warmup=1)
        loop.attach(supervised(loss=torch.nn.MSELoss(), optimizer=optimizer), profile)
        loop.fit(epochs=1)
        assert 0 < profile.tables[0].own_share < 1
        assert profile.traces[0].name.endswith(".pt.trace.json")
        ```
    """

    phases = TRAIN_ONLY
    only_watches = True
    instead_of_two = "One at a time can run; give it repeat=2, or more active updates."

    def __init__(
        self,
        active: int = 10,
        *,
        wait: int = 20,
        warmup: int = 2,
        repeat: int = 1,
        file: TextIO | None = None,
    ) -> None:
        self._active = positive_int("active", active)
        self._wait = positive_int("wait", wait)
        self._warmup = positive_int("warmup", warmup)
        self._repeat = positive_int("repeat", repeat)
        self._console = Console(file)
        self._loop: FitLoop | None = None
        self._stage: Literal["wait", "time", "trace", "done"] = "done"
        self._left = self._num_steps = self._num_cycles = 0
        self._wait_s = self._waited_s = 0.0
        self._running: StepTimes | Tracing | None = None
        self._around: StepContext | None = None
        self.tables: list[StepTable] = []
        self.traces: list[Path] = []

    def attach(self, loop: "FitLoop") -> None:
        """Keep the loop: its bus calls the hooks."""
        self._loop = loop

    def on_fit_begin(self, state: State) -> None:
        """Wait for the first updates."""
        self._num_cycles = 0
        self._stage, self._left = "wait", self._wait
        if not state.is_main:
            self._stage = "done"

    def on_pass_begin(self, state: State) -> None:
        """Begin to count how long this pass waits for data."""
        self._waited_s = 0.0

    def on_batch_begin(self, state: State) -> None:
        """Look at the step region as a whole, too."""
        if self._running is not None and self._loop is not None:
            context = self._running.region
            self._around = StepContext(self._loop.runner, context, eager=False)

    def on_batch_end(self, state: State) -> None:
        """Count; go on to the next stage when it is time."""
        self._leave_step()
        if self._stage == "done":
            return
        self._num_steps += 1
        self._wait_s += state.data_wait_s - self._waited_s
        self._waited_s = state.data_wait_s
        if state.closes_update:
            self._left -= 1
            if isinstance(self._running, Tracing):
                self._running.step()
            elif self._running is not None and self._left == self._active:
                self._running.restart()
                self._num_steps, self._wait_s = 0, 0.0
            if not self._left:
                self._next_stage(state)

    def on_fit_end(self, state: State) -> None:
        """Use what there is of a run that was too short."""
        complete = self._stage == "done"
        self._finish(state)
        if state.is_main and not complete and self._num_cycles == 0:
            needed = self._wait + 1 + 2 * self._active + self._warmup
            warnings.warn(
                f"Profile needs {needed} updates in one call of fit, which has ended before\n"
                "Train longer, or make wait=, warmup= and active= smaller.",
                stacklevel=2,
            )

    def on_close(self, state: State) -> None:
        """Leave nothing running after an error."""
        self._leave_step()
        self._finish(state)

    def _next_stage(self, state: State) -> None:
        stage = self._stage
        self._finish(state)
        if stage == "wait":
            self._begin("time", 1 + self._active)  # hooks after this one were not seen just now
            self._run(StepTimes())
        elif stage == "time":
            self._begin("trace", self._warmup + self._active)
            self._start_tracing(state)
        else:
            self._num_cycles += 1
            if self._num_cycles < self._repeat:
                self._begin("wait", self._wait)

    def _begin(self, stage: Literal["wait", "time", "trace"], num_updates: int) -> None:
        self._stage, self._left = stage, num_updates
        self._num_steps, self._wait_s = 0, 0.0

    def _run(self, running: StepTimes | Tracing) -> None:
        assert self._loop is not None  # noqa: S101  # it was attached
        self._running = running
        self._loop.bus.add_tracer(running.trace)

    def _start_tracing(self, state: State) -> None:
        try:
            tracing = Tracing(
                state.run_dir / "profile",
                self,
                warmup=self._warmup,
                active=self._active,
                device=state.device,
            )
        except RuntimeError as error:
            self._stage = "done"
            warnings.warn(
                f"Profile cannot trace: {error}\n"
                "There is the table. For a trace, let no other profiler run.",
                stacklevel=2,
            )
            return
        self._run(tracing)

    def _finish(self, state: State) -> None:
        """End the stage that runs, and keep what it has found."""
        running, self._running = self._running, None
        self._stage = "done"
        if running is None or self._loop is None:
            return
        self._loop.bus.remove_tracer(running.trace)
        if isinstance(running, Tracing):
            running.stop()
            self._tell_trace(running.path)
        elif self._num_steps and self._left < self._active:
            table = running.table(self._num_steps, self._wait_s, str(state.device))
            self.tables.append(table)
            for line in str(table).splitlines():
                self._console.line(line)

    def _tell_trace(self, path: Path | None) -> None:
        if path is None:
            return
        self.traces.append(path)
        self._console.line(f"trace: {path}")
        if self.tables:
            with contextlib.suppress(OSError):  # the trace beside it could be written
                path.with_name(path.name.replace(".pt.trace.json", ".txt")).write_text(
                    f"{self.tables[-1]}\n", encoding="utf-8"
                )

    def _leave_step(self) -> None:
        if self._around is not None:
            self._around.remove()
            self._around = None
