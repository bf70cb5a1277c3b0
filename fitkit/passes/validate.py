"""Validation passes within a run."""

from typing import TYPE_CHECKING, final

from fitkit.data import check_rereadable, length
from fitkit.loop.callback import TRAIN_ONLY, Callback
from fitkit.loop.events import Event, Phase
from fitkit.loop.interval import Interval
from fitkit.loop.state import State

if TYPE_CHECKING:
    from fitkit.loop.fit_loop import FitLoop

__all__ = ["Validate"]


@final
class Validate(Callback):
    """Run a pass over every validation loader of the loop, without gradients.

    Args:
        every: "1 epoch", "500 updates" or 500, "10 minutes". Validation by updates or time runs
            right after the batch in which it is due, inside the training pass.

    Reads:  the loop's val_loader; nothing happens without one.
    Writes: nothing itself; the pass logs val_loss and so on, val_<name>_loss with several loaders.
    Logs:   nothing itself.
    Syncs:  never itself; Metrics once per pass.
    Raises: ConfigError if `every` is no interval, or if the loop has a Validate already; DataError
        for a loader that can be read once, such as a generator, where it is to be read again.

    Example:
        ```python
        import torch
        from fitkit import FitLoop, TensorLoader, supervised

        def digits(n):
            return TensorLoader(torch.randn(n, 4), torch.randn(n, 1))

        model = torch.nn.Linear(4, 1)
        loop = FitLoop(model, digits(64), digits(32))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        loop.attach(supervised(loss=torch.nn.MSELoss(), optimizer=optimizer))  # has a Validate()
        assert "val_loss" in loop.fit(epochs=1)
        ```
    """

    phases = TRAIN_ONLY
    only_watches = True
    instead_of_two = (
        "A stack brings its own: attach one stack, and say how often in it: "
        "supervised(..., validate=500)."
    )

    def __init__(self, every: int | str = "1 epoch") -> None:
        self._every = every
        self._interval = Interval.parse(every)
        self._loop: FitLoop | None = None

    def attach(self, loop: "FitLoop") -> None:
        """Keep the loop: this callback drives it."""
        self._loop = loop

    def on_fit_begin(self, state: State) -> None:
        """Start the interval; refuse now what would be used up at the second validation."""
        self._interval.start(state)
        if self._loop is None or not self._interval.comes_again(
            state, length(self._loop.train_loader)
        ):
            return
        unit = " updates" if isinstance(self._every, int) else ""
        for name, loader in self._loop.val_loaders.items():
            place = f"val_loader['{name}']" if name else "val_loader"
            check_rereadable(loader, place, f"validation runs every {self._every}{unit}")

    def on_batch_end(self, state: State) -> None:
        """Ask for VALIDATE if it is due in mid-pass."""
        if self._interval.due(state):
            state.request(Event.VALIDATE)

    def on_validate(self, state: State) -> None:
        """Validate if it is due or was requested."""
        if self._loop is None or not (
            Event.VALIDATE in state.requests or self._interval.due(state)
        ):
            return
        self._interval.mark(state)
        for name, loader in self._loop.val_loaders.items():
            self._loop.runner.run_pass(Phase.VAL, loader, prefix=f"val_{name}_" if name else "val_")
