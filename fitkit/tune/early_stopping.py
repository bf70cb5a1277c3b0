"""The end of a run that gets no better."""

import math
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, final

from torch import Tensor

from fitkit.errors import ConfigError, brief
from fitkit.loop.better import Mode
from fitkit.loop.callback import Callback
from fitkit.loop.events import Phase
from fitkit.loop.interval import positive_int
from fitkit.loop.monitor import Monitor
from fitkit.loop.snapshot import trained_tensors
from fitkit.loop.state import State
from fitkit.tune.tensor_lists import copy_, copy_of

if TYPE_CHECKING:
    from fitkit.loop.fit_loop import FitLoop

__all__ = ["EarlyStopping"]


@final
class EarlyStopping(Callback):
    """Stop when a logged value has not got better for a while; go back to the best weights.

    A value of validation is looked at after every validation, any other one after every epoch.
    NaN is never better. The reason is kept in `state.stop_reason`. A further call of `fit` has
    patience again; a run that is resumed where it had stopped ends at once, unless `patience` is
    larger now.

    Args:
        monitor: The key in `state.logs`.
        patience: So many looks in a row without a better value end the run.
        mode: "min" or "max"; None infers it from the name, where that is safe.
        min_delta: By how much a value must be better than the best so far.
        baseline: As long as this value is not beaten, no look counts as better.
        restore_best: Give the model back the weights of the best look when `fit` ends; with `EMA`
            and a value of validation, the averages that were validated. The slots of the optimizer
            stay as they are.

    Reads:  state.logs.
    Writes: state.stop, state.stop_reason; at FIT_END the weights, buffers and running statistics
        of the model, in place.
    Logs:   nothing.
    Syncs:  never.
    Raises: ConfigError if a number is out of range, the mode cannot be inferred, nothing is
        validated, or the value is not logged. Warns once if patience counts validations that come
        less often than once per epoch.

    Attributes:
        best: The best value so far, None before the first.
        best_epoch: The epoch it was seen in, from 0.

    Example:
        ```python
        import torch
        from fitkit import EarlyStopping, FitLoop, TensorLoader, supervised

        def digits(n):
            return TensorLoader(torch.randn(n, 4), torch.randn(n, 1))

        model = torch.nn.Linear(4, 1)
        loop = FitLoop(model, digits(64), digits(32))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        loop.attach(supervised(loss=torch.nn.MSELoss(), optimizer=optimizer))
        loop.attach(EarlyStopping("val_loss", patience=2))
        loop.fit(epochs=50)
        print(loop.state.stop_reason)  # val_loss was not below 1.03 (epoch 4) in 2 looks ...
        ```
    """

    phases = frozenset({Phase.TRAIN, Phase.VAL})
    after = ("Metrics", "CompiledRun", "Validate")

    def __init__(
        self,
        monitor: str = "val_loss",
        *,
        patience: int = 3,
        mode: Mode | None = None,
        min_delta: float = 0.0,
        baseline: float | None = None,
        restore_best: bool = True,
    ) -> None:
        self.patience = positive_int("patience", patience)
        self.best: float | None = None
        self.best_epoch = 0
        self._monitor = Monitor("EarlyStopping", monitor, mode=mode, min_delta=min_delta)
        self._baseline = _checked_baseline(baseline)
        self._restores = restore_best
        self._num_bad = 0
        self._is_warned = self._has_stopped = False
        self._weights: list[Tensor] = []  # those of the best look
        self._loop: FitLoop | None = None

    def attach(self, loop: "FitLoop") -> None:
        """Keep the loop: it knows whether anything validates."""
        self._loop = loop

    def on_fit_begin(self, state: State) -> None:
        """Check that values will come; have patience again if the last run was stopped here."""
        if self._loop is not None:
            self._monitor.check(self._loop)
        if self._has_stopped:
            self._num_bad, self._has_stopped = 0, False

    def on_epoch_begin(self, state: State) -> None:
        """Do not go on with a run that was resumed where it had been stopped here."""
        if self._has_stopped and self._num_bad >= self.patience:
            state.request_stop(self._reason(state.logs.get(self._monitor.name, math.nan)))

    def on_pass_end(self, state: State) -> None:
        """Look at the value that a validation has logged."""
        self._look(self._monitor.at_pass_end(state), state)

    def on_epoch_end(self, state: State) -> None:
        """Look at a value that training has logged."""
        self._look(self._monitor.at_epoch_end(state), state)

    def on_fit_end(self, state: State) -> None:
        """Go back to the best weights."""
        if self._restores and self._weights:
            copy_(trained_tensors(state.model), self._weights)

    def state_dict(self) -> dict[str, Any]:
        """Return the best value, its weights, the looks since, and what was seen in this epoch."""
        return {
            "best": math.nan if self.best is None else self.best,
            "best_epoch": self.best_epoch,
            "num_bad": self._num_bad,
            "has_stopped": self._has_stopped,
            "monitor": self._monitor.state_dict(),
            "weights": list(self._weights),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore them."""
        self.best = None if math.isnan(state["best"]) else state["best"]
        self.best_epoch = state["best_epoch"]
        self._num_bad, self._has_stopped = state["num_bad"], state["has_stopped"]
        self._monitor.load_state_dict(state["monitor"])
        self._weights = copy_of(state["weights"])

    def _look(self, value: float | None, state: State) -> None:
        if value is None:
            return
        self._warn_of_gaps()
        is_better = self._monitor.is_better(value, self.best)
        if is_better:
            self.best, self.best_epoch = value, state.epoch
            self._keep(state)
        counts = self._baseline is None or self._monitor.is_better(value, self._baseline)
        self._num_bad = 0 if is_better and counts else self._num_bad + 1
        if self._num_bad >= self.patience:
            self._has_stopped = True
            state.request_stop(self._reason(value))

    def _keep(self, state: State) -> None:
        if not self._restores:
            return
        weights = trained_tensors(state.model)
        if len(self._weights) == len(weights):
            copy_(self._weights, weights)
        else:
            self._weights = copy_of(weights)

    def _reason(self, value: float) -> str:
        name, side = self._monitor.name, "below" if self._monitor.mode == "min" else "above"
        if self.best is None:
            return f"{name} was {value} {self.patience} times in a row"
        limit = f"{self.best:.6g} (epoch {self.best_epoch})"
        if self._baseline is not None and not self._monitor.is_better(self.best, self._baseline):
            limit = f"the baseline {self._baseline:.6g}"
        by = f" by {self._monitor.min_delta:.6g}" if self._monitor.min_delta else ""
        return f"{name} was not {side} {limit}{by} in the last {self.patience} looks"

    def _warn_of_gaps(self) -> None:
        gap, self._monitor.num_epochs = self._monitor.num_epochs, 1
        if gap > 1 and not self._is_warned:
            self._is_warned = True
            warnings.warn(
                f"EarlyStopping(patience={self.patience}) counts validations, which come every "
                f"{gap} epochs\nThe run ends after {gap * self.patience} epochs without a better "
                f"'{self._monitor.name}'; lower patience=, or validate every epoch.",
                stacklevel=2,
            )


def _checked_baseline(baseline: Any) -> float | None:
    if baseline is None:
        return None
    is_number = isinstance(baseline, int | float) and not isinstance(baseline, bool)
    if is_number and math.isfinite(baseline):
        return float(baseline)  # sync: none, it is a number
    raise ConfigError(
        f"EarlyStopping(baseline={brief(baseline)}) is a {type(baseline).__name__}, expected a "
        "finite number\nGive the value to beat, or leave it out."
    )
