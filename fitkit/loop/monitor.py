"""A logged value that a callback waits for: when it is fresh, which way is better, who lacks it."""

import difflib
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fitkit.errors import ConfigError
from fitkit.loop.better import Mode, mode_of
from fitkit.loop.callback import Callback, listens_to
from fitkit.loop.events import Event, Phase
from fitkit.loop.interval import not_negative
from fitkit.loop.state import State

if TYPE_CHECKING:
    from fitkit.loop.fit_loop import FitLoop

__all__ = ["Monitor"]


class Monitor:
    """One value of `state.logs`, seen once per validation, or per epoch if training logs it.

    A value of validation is taken at the end of the very pass that logged it, so a validation in
    mid-epoch counts, and none counts twice. Any other value is taken at EPOCH_END.

    Args:
        owner: The class that waits, for messages.
        name: The key in `state.logs`.
        mode: "min" or "max"; None infers it from the name, where that is safe.
        min_delta: By how much a value must be better than the best.

    Attributes:
        num_epochs: Epochs since the value was last seen, the current one included.

    Raises:
        ConfigError: If the mode is neither and cannot be inferred, or `min_delta` is negative.
    """

    def __init__(self, owner: str, name: str, *, mode: Mode | None, min_delta: float = 0.0) -> None:
        self.name = name
        self.mode: Mode = mode_of(owner, name, mode)
        self.min_delta = not_negative(owner, "min_delta", min_delta)
        self.num_epochs = 1
        self._owner = owner
        self._lacking: dict[str, str] = {}  # of what the value needs, with the remedies
        self._is_known = False  # whether it is logged by a validation, or never
        self._seen_at = -1  # updates before the latest validation that has logged it
        self.begin_epoch()

    def check(self, loop: "FitLoop") -> None:
        """Check before the first batch that the value can come.

        Raises:
            ConfigError: If it is one of validation, the loop does not validate, and all its
                callbacks are fitkit's; others may log what they like.
        """
        self.begin_epoch()
        self._lacking = _lacking(loop) if self.name.startswith("val_") else {}
        is_alone = not any(map(_runs_code_of_others, loop.callbacks))
        self._is_known = is_alone and self.name.startswith("val_")
        if self._lacking and is_alone:
            remedy = " and ".join(self._lacking.values())
            raise ConfigError(
                f"{self._owner} waits for '{self.name}', but {' and '.join(self._lacking)}\n"
                f"{remedy[0].upper()}{remedy[1:]}, or monitor '{self.name.removeprefix('val_')}'."
            )

    def begin_epoch(self) -> None:
        """Forget what was seen; `check` and `at_epoch_end` do so."""
        self._is_seen = self._is_validated = False

    def at_pass_end(self, state: State) -> float | None:
        """Return the value if the validation pass that ends has logged it."""
        if state.phase is not Phase.VAL or not state.prefix.startswith("val_"):
            return None
        self._is_validated = True
        if not self.name.startswith(state.prefix) or self.name not in state.logs:
            return None
        self._is_seen, self._seen_at = True, state.num_updates
        return state.logs[self.name]

    def at_epoch_end(self, state: State) -> float | None:
        """Return the value if it was logged in this epoch and not returned by `at_pass_end`.

        Raises:
            ConfigError: If it should have been logged by now.
        """
        value = self.of_epoch(state)
        if value is None and not self._is_seen:
            self.num_epochs += 1  # no validation in this epoch
        is_seen = self._is_seen
        self.begin_epoch()
        return None if is_seen else value

    def of_epoch(self, state: State) -> float | None:
        """Return the value of the epoch that ends; None if it is one of a validation to come.

        Raises:
            ConfigError: If it should have been logged by now.
        """
        value = state.logs.get(self.name)
        may_be_absent = self.name.startswith("val_") and not self._lacking
        if value is None and not self._is_seen and (self._is_validated or not may_be_absent):
            raise self._missing(state)
        return value

    def of_weights(self, state: State) -> float | None:
        """Return the value if it is logged, and not one of a validation some updates ago.

        Raises:
            ConfigError: If a validation has come, and nobody can log the value later.
        """
        value = state.logs.get(self.name)
        if value is None and self._is_validated and self._is_known:
            raise self._missing(state)
        return None if self._is_old(state) else value

    def doubt(self, value: float | None, state: State) -> str:
        """Say why what `of_weights` has returned can never be best; "" if nothing is odd."""
        if self._is_old(state):
            return (
                f"'{self.name}' is of a validation before the last updates, so it does not count\n"
                "Only a checkpoint that was validated can be best: have both equally often."
            )
        if value is not None and math.isnan(value):
            return f"{self.name} is NaN\nNaN is never best; look at the loss and the learning rate."
        return ""

    def _is_old(self, state: State) -> bool:
        return self._is_seen and self._seen_at != state.num_updates

    def is_better(self, value: float, than: float | None) -> bool:
        """Return whether `value` beats `than`, None being nothing yet. NaN never does."""
        if math.isnan(value):
            return False
        if than is None:
            return True
        gain = than - value if self.mode == "min" else value - than
        return gain > self.min_delta

    def state_dict(self) -> dict[str, Any]:
        """Return what was seen in this epoch, and since when the value was not."""
        return {
            "num_epochs": self.num_epochs,
            "is_seen": self._is_seen,
            "is_validated": self._is_validated,
            "seen_at": self._seen_at,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore them: a run that goes on in mid-epoch finds the value in `state.logs`."""
        self.num_epochs = state["num_epochs"]
        self._is_seen, self._is_validated = state["is_seen"], state["is_validated"]
        self._seen_at = state["seen_at"]

    def _missing(self, state: State) -> ConfigError:
        known = sorted(state.logs)
        close = difflib.get_close_matches(self.name, known, n=1)
        hint = f"Did you mean '{close[0]}'?" if close else "Monitor one of these."
        if self._lacking:
            hint = f"Monitor one of these, or {' and '.join(self._lacking.values())}."
        return ConfigError(
            f"{self._owner} waits for '{self.name}', which no callback has logged\n"
            f"Logged are: {', '.join(known) or 'no values at all'}.\n{hint}"
        )


def _lacking(loop: "FitLoop") -> dict[str, str]:
    """Return what a loop lacks that is to validate, with the remedies."""
    lacking: dict[str, str] = {}
    if not loop.val_loaders:
        lacking["the loop has no val_loader"] = "pass a val_loader"
    if not any(listens_to(callback, Event.VALIDATE) for callback in loop.callbacks):
        lacking["no callback validates"] = "attach Validate()"
    return lacking


def _runs_code_of_others(callback: Callback) -> bool:
    return callback.runs_other_code or not type(callback).__module__.startswith("fitkit.")
