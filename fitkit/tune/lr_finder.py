"""A search for a learning rate that leaves no trace."""

import math
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, final

from fitkit.errors import ConfigError, brief
from fitkit.loop.bus import EventBus
from fitkit.loop.callback import TRAIN_ONLY, Callback
from fitkit.loop.events import Event, Phase
from fitkit.loop.interval import not_negative, positive_int
from fitkit.loop.runner import Runner
from fitkit.loop.state import State
from fitkit.tune.held_optimizer import Setting, build_optimizers, held_optimizer, setting_of
from fitkit.tune.lr_curve import LRCurve
from fitkit.tune.rehearsal import players, untouched, untouched_model, untouched_optimizers

if TYPE_CHECKING:
    from fitkit.loop.fit_loop import FitLoop

__all__ = ["LRFinder"]

_DIVERGED = 4.0  # the search ends so many times the lowest smoothed loss above it


@final
class LRFinder:
    """Train a little with growing learning rates, and tell which ones are worth trying.

    The rate grows geometrically from `start` to `end`. The search ends early where the loss
    diverges. Then model, optimizer, metrics, random numbers and loader are what they were, bit by
    bit; a Keras optimizer that had no slots yet has them afterwards, with their first values. Only
    the callbacks that take part in a step hear of it, and `Record` is left out. Source: Smith 2017,
    arXiv:1506.01186, section 3.3.

    Args:
        start: The first rate.
        end: The last rate.
        num_updates: How many updates the search takes.
        smoothing: The weight of the past in the smoothed loss, from 0 to below 1.
        optimizer: Whose rate, where the loop has several.

    Raises:
        ConfigError: If a number is out of range.

    Example:
        ```python
        import torch
        from fitkit import FitLoop, LRFinder, TensorLoader, supervised

        model = torch.nn.Linear(4, 1)
        loop = FitLoop(model, TensorLoader(torch.randn(64, 4), torch.randn(64, 1)))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        loop.attach(supervised(loss=torch.nn.MSELoss(), optimizer=optimizer))
        found = LRFinder(start=1e-4, end=10.0, num_updates=50).find(loop)
        print(found.suggestion)
        ```
    """

    def __init__(
        self,
        *,
        start: float = 1e-6,
        end: float = 10.0,
        num_updates: int = 100,
        smoothing: float = 0.9,
        optimizer: Any = None,
    ) -> None:
        self.start = not_negative("LRFinder", "start", start)
        self.end = not_negative("LRFinder", "end", end)
        self.num_updates = positive_int("num_updates", num_updates)
        self.smoothing = not_negative("LRFinder", "smoothing", smoothing)
        self._optimizer = optimizer
        if not 0 < self.start < self.end or self.smoothing >= 1:
            raise ConfigError(
                f"LRFinder(start={brief(start)}, end={brief(end)}, smoothing={brief(smoothing)}) "
                "is no range\nGive 0 < start < end, and a smoothing below 1."
            )

    def find(self, loop: "FitLoop") -> LRCurve:
        """Search with the stack, model and train_loader of a loop that is not running.

        Raises:
            ConfigError: If the loop is running, has turns, cannot train, its loader cannot be read
                twice, or its rate cannot be set.

        Syncs: once per batch, to see whether the loss diverges.
        """
        _check(loop)
        optimizer, _ = held_optimizer(loop, self._optimizer, "LRFinder")
        sweep = _Sweep(loop, setting_of(optimizer, "lr", "LRFinder"), self)
        callbacks = [*players(loop, Phase.TRAIN, metrics=False), sweep]
        state, bus = loop.state, EventBus(loop.state)
        bus.build(callbacks)
        runner = Runner(bus, state, lambda: None)

        def search() -> None:
            bus.emit(Event.FIT_BEGIN)
            while not state.stop:
                runner.run_pass(Phase.TRAIN, loop.train_loader)
                state.epoch += 1

        loop.running = "find"
        try:
            with untouched(loop, callbacks, [loop.train_loader]), untouched_model(loop.model):
                state.stop, state.max_steps, state.max_time_s = False, None, None
                loop.session.run(callbacks, search)
        finally:
            loop.running = None
        return LRCurve(sweep.rates, sweep.losses, sweep.smoothed)


@final
class _Sweep(Callback):
    """Sets the rate of each update, and keeps the losses."""

    phases = TRAIN_ONLY

    def __init__(self, loop: "FitLoop", setting: Setting, finder: LRFinder) -> None:
        self.rates: list[float] = []
        self.losses: list[float] = []
        self.smoothed: list[float] = []
        self._loop, self._setting, self._finder = loop, setting, finder
        self._window: list[float] = []
        self._mean = 0.0
        self._undo = ExitStack()
        self._is_ready = False

    def on_pass_begin(self, state: State) -> None:
        """Keep a copy of the optimizers, once they have their slots."""
        if not self._is_ready:
            self._is_ready = True
            build_optimizers(self._loop)
            self._undo.enter_context(untouched_optimizers(self._loop))

    def on_batch_begin(self, state: State) -> None:
        """Set the rate of this update."""
        finder = self._finder
        done = len(self.losses) / max(finder.num_updates - 1, 1)
        rate = finder.start * (finder.end / finder.start) ** done
        self._setting.write([rate] * len(self._setting.read()))
        if len(self.rates) == len(self.losses):
            self.rates.append(rate)

    def on_batch_end(self, state: State) -> None:
        """Keep the loss; stop where it diverges, or at the end."""
        self._window.append(float(state.loss))  # sync: once per batch, to see whether it diverges
        if state.closes_update:
            self._close_window(state)

    def on_pass_end(self, state: State) -> None:
        """Close the window that the end of the loader has cut short."""
        if self._window:
            self._close_window(state)

    def on_close(self, state: State) -> None:
        """Put the optimizers back."""
        self._undo.close()

    def _close_window(self, state: State) -> None:
        loss, past = sum(self._window) / len(self._window), self._finder.smoothing
        self._window = []
        if not math.isfinite(loss):
            self.rates.pop()
            state.request_stop("the loss is not finite")
            return
        self.losses.append(loss)
        self._mean = past * self._mean + (1 - past) * loss
        self.smoothed.append(self._mean / (1 - past ** len(self.losses)))
        lowest = min(self.smoothed)
        diverges = self.smoothed[-1] - lowest > _DIVERGED * abs(lowest)
        if diverges or len(self.losses) >= self._finder.num_updates:
            state.request_stop("the search is over")


def _check(loop: "FitLoop") -> None:
    if loop.running is not None:
        raise ConfigError(
            f"LRFinder.find() was called while {loop.running}() of the loop is running\n"
            "Search before fit, and set the rate the search suggests."
        )
    if loop.bus.turns != (None,):
        names = ", ".join(turn.name for turn in loop.bus.turns if turn is not None)
        raise ConfigError(
            f"LRFinder found the turns {names}, whose losses depend on each other's rates\n"
            "Search with a loop of one turn."
        )
    if loop.train_loader is None or hasattr(loop.train_loader, "__next__"):
        kind = type(loop.train_loader).__name__
        raise ConfigError(
            f"LRFinder cannot put the train_loader back where it was: it is a {kind}\n"
            "Give the loop a loader that can be read again: TensorLoader, DataLoader, a list."
        )
    loop.check(Phase.TRAIN)
