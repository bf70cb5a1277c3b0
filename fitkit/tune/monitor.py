"""A logged value that a callback waits for: when it is fresh, which way is better, who lacks it."""

import difflib
import math
from typing import TYPE_CHECKING, Any

from fitkit.errors import ConfigError, brief
from fitkit.loop.better import Mode, check_can_come, mode_of
from fitkit.loop.events import Phase
from fitkit.loop.state import State

if TYPE_CHECKING:
    from fitkit.loop.fit_loop import FitLoop

__all__ = ["Monitor", "not_negative"]


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

    def __init__(self, owner: str, name: str, *, mode: Mode | None, min_delta: float) -> None:
        self.name = name
        self.mode = mode_of(owner, name, mode)
        self.min_delta = not_negative(owner, "min_delta", min_delta)
        self.num_epochs = 1
        self._owner = owner
        self._is_seen = self._is_validated = False
        self._may_be_absent = False  # in an epoch without a validation

    def check(self, loop: "FitLoop") -> None:
        """Check before the first batch that the value can come.

        Raises:
            ConfigError: If it is one of validation and the loop does not validate.
        """
        self._is_seen = self._is_validated = False
        self._may_be_absent = check_can_come(self._owner, self.name, loop)

    def at_pass_end(self, state: State) -> float | None:
        """Return the value if the validation pass that ends has logged it."""
        if state.phase is not Phase.VAL or not state.prefix.startswith("val_"):
            return None
        self._is_validated = True
        if not self.name.startswith(state.prefix) or self.name not in state.logs:
            return None
        self._is_seen = True
        return state.logs[self.name]

    def at_epoch_end(self, state: State) -> float | None:
        """Return the value if it was logged in this epoch and not returned by `at_pass_end`.

        Raises:
            ConfigError: If it should have been logged by now.
        """
        value = None if self._is_seen else state.logs.get(self.name)
        if value is None and not self._is_seen:
            if self._is_validated or not self._may_be_absent:
                raise self._missing(state)
            self.num_epochs += 1  # no validation in this epoch
        self._is_seen = self._is_validated = False
        return value

    def is_better(self, value: float, than: float | None) -> bool:
        """Return whether `value` beats `than`, None being nothing yet. NaN never does."""
        if math.isnan(value):
            return False
        if than is None:
            return True
        gain = than - value if self.mode == "min" else value - than
        return gain > self.min_delta

    def _missing(self, state: State) -> ConfigError:
        known = sorted(state.logs)
        close = difflib.get_close_matches(self.name, known, n=1)
        nearest = f"; the nearest is '{close[0]}'" if close else ""
        if self.name.startswith("val_") and not self._may_be_absent:
            nearest = ", or pass a val_loader"
        return ConfigError(
            f"{self._owner} waits for '{self.name}', which no callback has logged\n"
            f"Logged are: {', '.join(known) or 'no values at all'}.\n"
            f"Monitor one of these{nearest}."
        )


def not_negative(owner: str, argument: str, value: Any) -> float:
    """Return `value` if it is a finite number of at least 0.

    Raises:
        ConfigError: If it is anything else.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and 0 <= value < math.inf:
        return float(value)  # sync: none, it is a number
    raise ConfigError(
        f"{owner}({argument}={brief(value)}) got a {type(value).__name__}, expected a number >= 0\n"
        f"Give a finite number, for example {argument}=0.001."
    )
