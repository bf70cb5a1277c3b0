"""How far the run is."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TextIO, final

from fitkit.loop.callback import Callback
from fitkit.loop.events import Phase
from fitkit.loop.state import State
from fitkit.watch.console import Console, listing
from fitkit.watch.live_bar import LiveBar, bar_class
from fitkit.watch.losses import read_losses

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
    """Show a moving bar in terminals and notebooks, and one line with the logs per epoch.

    Where nothing can be drawn over (a file, a pipe, a dumb terminal) the bar is replaced by a
    plain line every 10 seconds. A validation inside a training pass gets a line of its own.

    Args:
        file: Where to; default is standard output.
        clock: Seconds, for tests.

    Reads:  state.batch_index, state.num_batches_expected; state.step_values, state.loss, shape ();
        state.logs.
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

    after = ("Metrics",)

    def __init__(
        self, file: TextIO | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = Console(file)
        self._clock = clock
        self._bar_class: Any = None
        self._passes: list[_Pass] = []
        self._epoch: str | None = None
        self._next_s = 0.0

    def on_open(self, state: State) -> None:
        """Find out what can be drawn."""
        self._passes.clear()
        self._epoch = None
        self._bar_class = bar_class(self._console) if state.is_main else None

    def on_pass_begin(self, state: State) -> None:
        """Show an empty bar."""
        if not state.is_main:
            return
        title, bar = _title(state), None
        if self._bar_class is not None:
            bar = LiveBar(self._bar_class, self._console, title, state.num_batches_expected)
        self._passes.append(_Pass(title, self._clock(), bar))
        self._wait()

    def on_batch_end(self, state: State) -> None:
        """Show the loss, from time to time."""
        if not self._passes:
            return
        running = self._passes[-1]
        running.num_batches += 1
        if self._clock() < self._next_s:
            return
        self._wait()
        losses = listing(read_losses(state))
        if running.bar is not None:
            running.bar.show(running.num_batches, losses)
        else:
            total = state.num_batches_expected
            done = f"{running.num_batches}/{total}" if total else f"{running.num_batches}"
            self._console.line(f"{running.title}  {done} batches  {losses}".rstrip())

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
            self._console.line(f"{line}  {listing(shown)}".rstrip())

    def on_epoch_end(self, state: State) -> None:
        """Write the line of the epoch."""
        if self._epoch is not None:
            results = {name: value for name, value in state.logs.items() if name != "lr"}
            self._console.line(f"{self._epoch}  {listing(results)}".rstrip())
            self._epoch = None

    def on_fit_end(self, state: State) -> None:
        """Write the line of an epoch that a stop has cut short, and why."""
        self.on_epoch_end(state)
        if state.stop_reason is not None and state.is_main:
            self._console.line(f"stopped: {state.stop_reason}")

    def on_close(self, state: State) -> None:
        """Take away the bars that an error has left."""
        while self._passes:
            bar = self._passes.pop().bar
            if bar is not None:
                bar.close()

    def _wait(self) -> None:
        self._next_s = self._clock() + (_LINE_S if self._bar_class is None else _BAR_S)


def _title(state: State) -> str:
    if state.phase is Phase.TRAIN:
        total = f"/{state.max_epochs}" if state.max_epochs is not None else ""
        return f"epoch {state.epoch + 1}{total}"
    name = state.prefix.removeprefix("val_").rstrip("_")
    return f"{state.phase} {name}".rstrip()


def _of_pass(state: State) -> dict[str, float]:
    return {name: value for name, value in state.logs.items() if name.startswith(state.prefix)}
