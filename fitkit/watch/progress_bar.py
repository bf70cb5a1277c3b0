"""How far the run is."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO, final

from fitkit.loop.callback import Callback
from fitkit.loop.events import Phase
from fitkit.loop.history import History
from fitkit.loop.state import State
from fitkit.watch.console import Console, listing
from fitkit.watch.live_bar import LiveBar, bar_class, run_bar
from fitkit.watch.losses import read_losses
from fitkit.watch.run_summary import run_summary, share_done

if TYPE_CHECKING:
    from fitkit.loop.fit_loop import FitLoop

__all__ = ["ProgressBar"]

_BAR_S, _LINE_S = 0.2, 10.0


@dataclass(slots=True)
class _Pass:
    title: str
    started_s: float
    bar: LiveBar | None
    num_batches: int = 0


@final
class ProgressBar(Callback):
    """Show how far the run and the pass are, a line of logs per epoch, and a table at the end.

    Terminals and notebooks get two moving bars: the run, and the pass with its loss and speed. A
    validation inside a training pass gets a line of its own, and its time is not counted in the
    speed of training. Where nothing can be drawn over (a file, a pipe, a dumb terminal) there are
    plain lines, one per 10 seconds at most, and the last epoch in any case.

    The table has the logs of the first, the best and the last epoch; the best one is that of the
    lowest loss, in validation if there is one. `evaluate` and `predict` get a line each.

    Args:
        file: Where to; default is standard output.
        summary: Whether there is a table after a `fit` of several epochs.
        clock: Seconds, for tests.

    Reads:  state.batch_index, state.num_batches_expected; state.step_values, state.loss, shape ();
        state.logs; loop.history.
    Writes: nothing.
    Logs:   nothing.
    Syncs:  to show the loss: at most once per 0.2 seconds, once per 10 seconds for plain lines.
    Raises: nothing; a stream that fails is given up.

    Example:
        ```python
        import torch
        from fitkit import FitLoop, ProgressBar, TensorLoader, supervised

        model = torch.nn.Linear(4, 1)
        loop = FitLoop(model, TensorLoader(torch.randn(64, 4), torch.randn(64, 1)))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        loop.attach(supervised(loss=torch.nn.MSELoss(), optimizer=optimizer), ProgressBar())
        loop.fit(epochs=2)  # epoch 1/2  0.0 s  loss ...
        ```
    """

    only_watches = True
    after = ("Metrics",)

    def __init__(
        self,
        file: TextIO | None = None,
        *,
        summary: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = Console(file)
        self._summary = summary
        self._clock = clock
        self._history: History | None = None
        self._bar_class: Any = None
        self._run: LiveBar | None = None
        self._share = 0.0  # of the run
        self._passes: list[_Pass] = []
        self._epoch: str | None = None  # the line of a training pass that waits for its validation
        self._held: str | None = None  # the latest line there was no time for
        self._next_s = self._next_line_s = self._started_s = 0.0
        self._begin = (0, 0)  # rows and samples where this fit began

    def attach(self, loop: "FitLoop") -> None:
        """Find the rows for the table."""
        self._history = loop.history

    def on_open(self, state: State) -> None:
        """Find out what can be drawn."""
        self._passes.clear()
        self._epoch = self._held = None
        self._next_line_s = self._clock()
        self._bar_class = bar_class(self._console) if state.is_main else None

    def on_fit_begin(self, state: State) -> None:
        """Show a bar for the run, if it may have more than one pass."""
        self._started_s = self._clock()
        self._begin = (len(self._history or ()), state.num_samples)
        several = state.max_epochs is None or state.max_epochs - state.epoch > 1
        if self._bar_class is not None and several:
            self._share = share_done(state)
            self._run = run_bar(self._bar_class, self._console, self._share)

    def on_pass_begin(self, state: State) -> None:
        """Show an empty bar."""
        if not state.is_main:
            return
        title, bar = _title(state), None
        if self._bar_class is not None:
            bar = LiveBar(self._bar_class, self._console, title, state.num_batches_expected)
        now = self._clock()
        self._passes.append(_Pass(title, now, bar))
        self._next_s = now + (_LINE_S if self._bar_class is None else _BAR_S)

    def on_batch_end(self, state: State) -> None:
        """Show the loss, from time to time."""
        if not self._passes:
            return
        running = self._passes[-1]
        running.num_batches += 1
        now = self._clock()
        if now < self._next_s or (running.bar is None and now < self._next_line_s):
            return
        if running.bar is None and state.is_last_batch:
            return  # the line of the whole pass is about to come
        losses = listing(read_losses(state))
        if running.bar is None:
            self._running_line(running, state.num_batches_expected, losses)
            self._next_s = now + _LINE_S
            return
        running.bar.show(running.num_batches, losses)
        if state.phase is Phase.TRAIN:
            self._share = share_done(state)
        if self._run is not None:
            self._run.show(self._share)  # in a validation, for its clock
        self._next_s = now + _BAR_S

    def on_pass_end(self, state: State) -> None:
        """Take the bar away; the line of a training pass waits for its validation."""
        if not self._passes:
            return
        ended = self._passes.pop()
        seconds = self._clock() - ended.started_s
        if ended.bar is not None:
            ended.bar.close()
        for outer in self._passes:
            outer.started_s += seconds
            if outer.bar is not None:
                outer.bar.leave_out(seconds)
        line = f"{ended.title}  {seconds:.1f} s"
        if state.phase is Phase.TRAIN:
            self._epoch = line
        elif self._epoch is None:
            shown = {} if state.phase is Phase.PREDICT else _of_pass(state)
            line = f"{line}  {listing(shown)}".rstrip()
            # What evaluate and predict were called for is always shown.
            self._line(line) if self._passes else self._console.line(line)

    def on_epoch_end(self, state: State) -> None:
        """Write the line of the epoch."""
        if self._epoch is not None:
            results = {name: value for name, value in state.logs.items() if name != "lr"}
            line, self._epoch = f"{self._epoch}  {listing(results)}".rstrip(), None
            self._line(line)
            if self._run is not None:
                self._run.show(share_done(state))

    def on_fit_end(self, state: State) -> None:
        """Write the line of an epoch that a stop has cut short, why, and the table."""
        self.on_epoch_end(state)
        self._close_bars()
        if self._held is not None:
            self._console.line(self._held)
        if state.is_main and state.stop_reason is not None:
            self._console.line(f"stopped: {state.stop_reason}")
        if state.is_main and self._summary and self._history is not None:
            seconds = self._clock() - self._started_s
            for line in run_summary(self._history, state, self._begin, seconds):
                self._console.line(line)

    def on_close(self, state: State) -> None:
        """Take away the bars that an error has left."""
        self._close_bars()

    def _close_bars(self) -> None:
        bars = [*(running.bar for running in reversed(self._passes)), self._run]
        self._passes.clear()
        self._run = None
        for bar in bars:
            if bar is not None:
                bar.close()

    def _line(self, text: str) -> None:
        """Write a line, or hold it back where lines were written a moment ago."""
        now = self._clock()
        if self._bar_class is None and now < self._next_line_s:
            self._held = text
            return
        self._held = None
        self._next_s = self._next_line_s = now + _LINE_S
        self._console.line(text)

    def _running_line(self, running: _Pass, total: int | None, losses: str) -> None:
        done = f"{running.num_batches}/{total}" if total else f"{running.num_batches}"
        speed = running.num_batches / max(self._clock() - running.started_s, 1e-9)
        self._line(f"{running.title}  {done} batches  {speed:,.1f}/s  {losses}".rstrip())


def _title(state: State) -> str:
    if state.phase is Phase.TRAIN:
        total = f"/{state.max_epochs}" if state.max_epochs is not None else ""
        return f"epoch {state.epoch + 1}{total}"
    name = state.prefix.removeprefix("val_").rstrip("_")
    return f"{state.phase} {name}".rstrip()


def _of_pass(state: State) -> dict[str, float]:
    return {name: value for name, value in state.logs.items() if name.startswith(state.prefix)}
