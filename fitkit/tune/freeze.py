"""Weights that do not train for a part of a run."""

import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, final

from torch import nn

from fitkit.errors import ConfigError, brief
from fitkit.interop import trainable_parameters
from fitkit.loop.callback import LOOKS_EVERY, TRAIN_ONLY, Callback
from fitkit.loop.interval import Interval
from fitkit.loop.state import State
from fitkit.tune.frozen import Frozen, found_in
from fitkit.tune.held_optimizer import build_optimizers

if TYPE_CHECKING:
    from fitkit.loop.fit_loop import FitLoop

__all__ = ["Freeze"]


@final
class Freeze(Callback):
    """Keep a part of the model as it is, from the beginning or a later point, until another one.

    Keras layers get `trainable = False`, so that batch normalization uses its running statistics.
    Parameters of a torch module get `requires_grad = False`, and normalization layers all of whose
    parameters are frozen go into eval mode, for the same reason. What was not trainable before
    stays so. When `fit` ends, the model has its flags back.

    Args:
        what: A name or a pattern such as "encoder" or "encoder.*.weight": names of Keras layers,
            names of modules or parameters of a torch module. Or a layer or module; a function of
            the name; a list of these.
        start: When it begins: "2 epochs", "500 updates" or 500; None is the beginning.
        until: When it ends, counted from the beginning of the run as well; None is never.

    Reads:  state.epoch, state.num_updates.
    Writes: the flags above, and the gradients of frozen weights, which are dropped. Under Record
        each set of frozen weights has programs of its own.
    Logs:   nothing.
    Syncs:  never.
    Raises: ConfigError if nothing has such a name, if nothing is left to train, if two of them hold
        the same weight, or if it would end before it begins.

    Example:
        ```python
        import torch
        from fitkit import FitLoop, Freeze, TensorLoader, supervised

        model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
        loop = FitLoop(model, TensorLoader(torch.randn(64, 4), torch.randn(64, 1)))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        loop.attach(supervised(loss=torch.nn.MSELoss(), optimizer=optimizer))
        loop.attach(Freeze("0", until="2 epochs"))  # the first layer
        loop.fit(epochs=3)
        ```
    """

    phases = TRAIN_ONLY
    after = ("TrainMode", "KerasApply")

    def __init__(
        self,
        what: str | nn.Module | Callable[[str], bool] | Iterable[Any],
        *,
        start: int | str | None = None,
        until: int | str | None = None,
    ) -> None:
        self._what = what
        self._start, self._until = _point("start", start), _point("until", until)
        self._follows_updates = "update" in (self._start.unit, self._until.unit)
        if self._start.unit == self._until.unit and self._start.count >= self._until.count:
            raise ConfigError(
                f"Freeze(start={brief(start)}, until={brief(until)}) ends before it begins\n"
                'Count both from the beginning of the run: start="1 epoch", until="3 epochs".'
            )
        self.only_watches = not self._follows_updates
        self._quiet = range(0)  # updates in which nothing changes
        self._loop: FitLoop | None = None
        self._frozen: Frozen | None = None

    def attach(self, loop: "FitLoop") -> None:
        """Keep the loop: its other callbacks must know what changes."""
        self._loop = loop

    @property
    def held(self) -> dict[int, str]:
        """The weights it freezes: names by the ids of the parameters."""
        return {} if self._frozen is None else self._frozen.names

    def on_fit_begin(self, state: State) -> None:
        """Find the weights."""
        assert self._loop is not None  # noqa: S101  # a hook runs only while attached
        self._frozen = found_in(state.model, self._what)
        for other in self._loop.callbacks:
            shared = set(self.held) & set(other.held) if isinstance(other, Freeze) else ()
            if shared and other is not self:
                raise ConfigError(
                    f"two Freeze hold {len(shared)} of the same weights, first "
                    f"'{self.held[min(shared)]}'\n"
                    "Each would undo what the other one does: name every weight in one of them."
                )

    def on_pass_begin(self, state: State) -> None:
        """Freeze or thaw for this epoch."""
        if self._loop is not None and self._frozen is not None:
            if not self._frozen.is_on:
                build_optimizers(self._loop)  # else Keras would never know what is frozen now
            state.exits.callback(self._frozen.restore_modes)
        self._quiet = range(0)
        self._switch(state)
        if not trainable_parameters(state.model):
            raise ConfigError(
                f"Freeze leaves nothing to train in epoch {state.epoch}\n"
                "Name fewer weights, or say until=."
            )

    def on_batch_begin(self, state: State) -> None:
        """Freeze or thaw within an epoch, if it depends on updates."""
        if state.num_updates in self._quiet:
            return
        self._quiet = self._quiet_from(state.num_updates)
        if not self._follows_updates:
            return
        self.only_watches = bool(self._quiet)
        if self._switch(state) and self._loop is not None:
            for callback in self._loop.callbacks:
                accept: Any = getattr(callback, "accept_flags", None)  # TrainMode would warn
                if accept is not None:
                    accept()

    def on_close(self, state: State) -> None:
        """Give the model its flags back."""
        if self._frozen is not None:
            self._frozen.thaw()

    def _quiet_from(self, now: int) -> range:
        """Return for how many updates nothing changes, nor is about to.

        It ends where `Record` may not look again before a point is reached.
        """
        points = [int(p.count) for p in (self._start, self._until) if p.unit == "update"]
        looks = [point - LOOKS_EVERY for point in points if point >= now]
        return range(now, min(looks, default=sys.maxsize))

    def _switch(self, state: State) -> bool:
        """Freeze or thaw if it is time; return whether anything changed."""
        if self._frozen is None:
            return False
        wanted = _reached(self._start, state) and not _reached(self._until, state)
        changed = wanted != self._frozen.is_on
        if wanted:
            self._frozen.freeze()
        else:
            self._frozen.thaw()
        return changed


_NEVER = Interval(float("inf"), "epoch")
_AT_ONCE = Interval(0, "epoch")


def _point(argument: str, value: int | str | None) -> Interval:
    if value is None:
        return _AT_ONCE if argument == "start" else _NEVER
    point = Interval.parse(value, argument=argument)
    if point.unit == "minute":
        raise ConfigError(
            f"Freeze({argument}={brief(value)}) is measured in time, expected updates or epochs\n"
            'Use "2 epochs", "500 updates" or 500.'
        )
    return point


def _reached(point: Interval, state: State) -> bool:
    now = state.epoch if point.unit == "epoch" else state.num_updates
    return now >= point.count
