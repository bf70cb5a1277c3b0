"""Running lines on standard output."""

from typing import TextIO, final

from fitkit.loop.callback import TRAIN_ONLY, Callback
from fitkit.loop.interval import Interval, positive_int
from fitkit.loop.state import State
from fitkit.watch.console import Console, listing
from fitkit.watch.losses import read_losses

__all__ = ["PrintLog"]


@final
class PrintLog(Callback):
    """Print the loss of a batch now and then, and one line of logs per epoch.

    Args:
        every: An int prints in batches 0, n, 2n, ... of every epoch; a string is an interval:
            "500 updates", "10 minutes", "1 epoch".
        file: Where to; default is standard output.

    Reads:  state.step_values, state.loss, shape (); state.logs.
    Writes: nothing.
    Logs:   nothing.
    Syncs:  once per printed loss.
    Raises: ConfigError if `every` is no interval.

    Example:
        ```python
        import torch
        from fitkit import FitLoop, PrintLog, TensorLoader, supervised

        model = torch.nn.Linear(4, 1)
        loop = FitLoop(model, TensorLoader(torch.randn(640, 4), torch.randn(640, 1)))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        loop.attach(supervised(loss=torch.nn.MSELoss(), optimizer=optimizer), PrintLog(every=10))
        loop.fit(epochs=1)  # Training loss (for 1 batch) at step 0: ...
        ```
    """

    phases = TRAIN_ONLY
    only_watches = True

    def __init__(self, every: int | str = 100, *, file: TextIO | None = None) -> None:
        self._every = positive_int("every", every) if isinstance(every, int) else 0
        self._interval = None if isinstance(every, int) else Interval.parse(every)
        self._console = Console(file)
        self._num_seen = 0
        self._pending = False

    def on_fit_begin(self, state: State) -> None:
        """Start the interval."""
        if self._interval is not None:
            self._interval.start(state)

    def on_epoch_begin(self, state: State) -> None:
        """Announce the epoch."""
        self._print(state, f"Start of epoch {state.epoch}")
        self._num_seen = 0
        self._pending = True

    def on_batch_end(self, state: State) -> None:
        """Print the loss of this batch if it is due."""
        self._num_seen += state.batch_size
        interval = self._interval
        if state.batch_index % self._every if interval is None else not interval.due(state):
            return
        if interval is not None:
            interval.mark(state)
        if state.is_main:
            self._print_losses(state)

    def _print_losses(self, state: State) -> None:
        step = state.batch_index
        for name, value in read_losses(state).items():
            label = name.replace("_", " ")
            self._print(state, f"Training {label} (for 1 batch) at step {step}: {value:.4f}")
        self._print(state, f"Seen so far: {self._num_seen} samples")

    def on_epoch_end(self, state: State) -> None:
        """Print the logs of the epoch."""
        self._print(state, f"Epoch {state.epoch}: {listing(state.logs)}")
        self._pending = False

    def on_fit_end(self, state: State) -> None:
        """Print the logs of an epoch that a stop has cut short, and why."""
        if self._pending and state.logs:
            self._print(state, f"Epoch {state.epoch}, stopped: {listing(state.logs)}")
        if state.stop_reason is not None:
            self._print(state, f"Stopped: {state.stop_reason}")

    def _print(self, state: State, text: str) -> None:
        if state.is_main:
            self._console.line(text)
