"""Less of a run: fewer steps, fewer batches, a look before it begins."""

import math
import warnings
from typing import TYPE_CHECKING, Any, final

from fitkit.data.limited import InPlaceOf, Limited
from fitkit.errors import ConfigError, brief
from fitkit.loop.bus import EventBus
from fitkit.loop.callback import Callback
from fitkit.loop.events import Phase
from fitkit.loop.interval import not_negative, positive_int
from fitkit.loop.runner import Runner
from fitkit.loop.state import State
from fitkit.tune.rehearsal import players, untouched

if TYPE_CHECKING:
    from fitkit.loop.fit_loop import FitLoop

__all__ = ["Limits"]

_BATCHES = {"False": None, "True": 1}  # of a fast_dev_run


@final
class Limits(Callback):
    """Bound a run: steps, time, batches per epoch; try it out before it begins.

    The loaders are put back when `fit` ends; `evaluate` and `predict` read everything.

    Args:
        max_steps: Updates in all calls of `fit` together; `fit(max_steps=)` counts those of a call.
        max_time: Seconds of one call of `fit`.
        train_batches: Batches of an epoch.
        val_batches: Batches of a validation.
        fast_dev_run: One epoch of so many batches, and as many of validation; True is 1. Checkpoint
            saves nothing: a later run would go on from there.
        overfit_batches: Train on so many batches, the same ones in every epoch, and validate on
            these: a model that can learn gets them right.
        sanity_batches: Before the first epoch, validate on so many batches of each loader to see
            that it works. It leaves no trace in logs, metrics, counters or random numbers, and only
            callbacks that take part in the step hear of it.

    Reads:  the loaders of the loop; state.num_updates, state.elapsed_s.
    Writes: the loaders of the loop while `fit` runs; state.stop, state.stop_reason.
    Logs:   nothing.
    Syncs:  never itself; the sanity validation once per loader, as any validation.
    Raises: ConfigError if a number is out of range, or two of them contradict each other.

    Example:
        ```python
        import torch
        from fitkit import FitLoop, Limits, TensorLoader, supervised

        model = torch.nn.Linear(4, 1)
        loop = FitLoop(model, TensorLoader(torch.randn(640, 4), torch.randn(640, 1)))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        loop.attach(supervised(loss=torch.nn.MSELoss(), optimizer=optimizer))
        loop.attach(Limits(train_batches=3))
        loop.fit(epochs=2)
        assert loop.state.num_batches == 6
        ```
    """

    instead_of_two = "Give all limits to one: Limits(max_steps=..., train_batches=...)."
    phases = frozenset({Phase.TRAIN})
    only_watches = True

    def __init__(
        self,
        *,
        max_steps: int | None = None,
        max_time: float | None = None,
        train_batches: int | None = None,
        val_batches: int | None = None,
        fast_dev_run: bool | int = False,
        overfit_batches: int | None = None,
        sanity_batches: int | None = None,
    ) -> None:
        counts = {
            "max_steps": max_steps,
            "train_batches": train_batches,
            "val_batches": val_batches,
            "fast_dev_run": _BATCHES.get(str(fast_dev_run), fast_dev_run),
            "overfit_batches": overfit_batches,
            "sanity_batches": sanity_batches,
        }
        asked = {k: positive_int(k, v) for k, v in counts.items() if v is not None}
        self._counts = asked
        self._max_steps = asked.get("max_steps", math.inf)
        self._max_time_s = None if max_time is None else _seconds(max_time)
        self._loop: FitLoop | None = None
        self._loaders: tuple[Any, dict[str, Any]] | None = None  # those of the user
        self._is_checked = False
        self.is_trial = "fast_dev_run" in asked
        _check_conflicts(asked)

    def attach(self, loop: "FitLoop") -> None:
        """Keep the loop: its loaders are bounded."""
        self._loop = loop

    def on_open(self, state: State) -> None:
        """Bound the loaders."""
        if self._loop is None or self._loop.train_loader is None:
            return
        loop, counts = self._loop, self._counts
        self._loaders = (loop.train_loader, loop.val_loaders)
        dev, overfit = counts.get("fast_dev_run"), counts.get("overfit_batches")
        train, val = counts.get("train_batches", dev), counts.get("val_batches", dev)
        if overfit is not None:
            self._warn_of_resume()
            loop.train_loader = kept = Limited(loop.train_loader, overfit, keep=True)
            loop.val_loaders = {k: InPlaceOf(v, kept) for k, v in loop.val_loaders.items()}
            return
        if train is not None:
            loop.train_loader = Limited(loop.train_loader, train)
        if val is not None:
            loop.val_loaders = {k: Limited(v, val) for k, v in loop.val_loaders.items()}

    def on_fit_begin(self, state: State) -> None:
        """Do not begin if the steps are used up."""
        self._stop_if_reached(state)

    def on_epoch_begin(self, state: State) -> None:
        """Validate a little, once, when every callback is ready."""
        num_batches = self._counts.get("sanity_batches")
        if self._loop is not None and num_batches is not None and not self._is_checked:
            self._is_checked = True
            _rehearse_validation(self._loop, num_batches)

    def on_batch_end(self, state: State) -> None:
        """Stop if a limit is reached."""
        if state.num_updates >= self._max_steps or self._max_time_s is not None:
            self._stop_if_reached(state)

    def on_pass_end(self, state: State) -> None:
        """Look again: the end of the loader may have completed a window."""
        self._stop_if_reached(state)

    def on_epoch_end(self, state: State) -> None:
        """End a trial run."""
        if self.is_trial:
            state.request_stop(f"fast_dev_run: {self._counts['fast_dev_run']} batches done")

    def on_close(self, state: State) -> None:
        """Put the loaders back."""
        if self._loop is not None and self._loaders is not None:
            self._loop.train_loader, self._loop.val_loaders = self._loaders
            self._loaders = None

    def _warn_of_resume(self) -> None:
        if self._loop is not None and self._loop.resumed_from is not None:
            warnings.warn(
                "Limits(overfit_batches=) goes on with the first batches of this process\n"
                "They are those of before only where the loader gives the same ones every time: "
                "take shuffle=False.",
                stacklevel=2,
            )

    def _stop_if_reached(self, state: State) -> None:
        if state.num_updates >= self._max_steps:
            reason = f"Limits(max_steps={self._max_steps}): {state.num_updates} updates done"
            state.request_stop(reason)
        if self._max_time_s is not None and state.elapsed_s >= self._max_time_s:
            state.request_stop(f"Limits(max_time={self._max_time_s:g}): {state.elapsed_s:.1f} s")


def _rehearse_validation(loop: "FitLoop", num_batches: int) -> None:
    callbacks = players(loop, Phase.VAL, metrics=True)
    bus = EventBus(loop.state)
    bus.build(callbacks)
    runner = Runner(bus, loop.state, lambda: None)
    with untouched(loop, callbacks, loop.val_loaders.values()):
        for name, loader in loop.val_loaders.items():
            prefix = f"val_{name}_" if name else "val_"
            runner.run_pass(Phase.VAL, Limited(loader, num_batches), prefix=prefix)


def _seconds(max_time: Any) -> float:
    seconds = not_negative("Limits", "max_time", max_time)
    if not seconds:
        raise ConfigError(
            "Limits(max_time=0) would stop at once, expected seconds above 0\n"
            "Give the seconds after which to stop, for example max_time=3600."
        )
    return seconds


def _check_conflicts(asked: dict[str, int]) -> None:
    per_epoch = {"train_batches", "val_batches", "fast_dev_run", "overfit_batches"} & set(asked)
    alone = {"fast_dev_run", "overfit_batches"} & per_epoch
    if alone and len(per_epoch) > 1:
        raise ConfigError(
            f"Limits got {' and '.join(sorted(per_epoch))}, which bound the same batches\n"
            f"Give {brief(sorted(alone)[0])} alone."
        )
