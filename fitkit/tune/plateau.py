"""The schedule that waits for a value to get better."""

import math
from collections.abc import Mapping
from typing import Any, final

from fitkit.errors import ConfigError, brief
from fitkit.loop.better import Mode
from fitkit.loop.interval import not_negative, positive_int
from fitkit.loop.monitor import Monitor

__all__ = ["Plateau"]


@final
class Plateau:
    """Multiply the rate when a logged value has stopped getting better, for `LRSchedule`.

    Args:
        monitor: The key in `state.logs`.
        factor: What the rate is multiplied with, between 0 and 1.
        patience: After so many looks without a better value the rate changes.
        cooldown: So many looks after a change count for nothing.
        min_value: The rate does not fall below it.
        min_delta: By how much a value must be better than the best.
        mode: "min" or "max"; None infers it from the name, where that is safe.

    Raises:
        ConfigError: If a number is out of range, or the mode cannot be inferred.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        *,
        factor: float = 0.1,
        patience: int = 5,
        cooldown: int = 0,
        min_value: float = 0.0,
        min_delta: float = 0.0,
        mode: Mode | None = None,
    ) -> None:
        self.monitor = Monitor("Plateau", monitor, mode=mode, min_delta=min_delta)
        self.patience = positive_int("patience", patience)
        is_number = isinstance(factor, float | int)  # pyright: ignore[reportUnnecessaryIsInstance]
        if not is_number or not 0 < factor < 1:
            raise ConfigError(
                f"Plateau(factor={brief(factor)}) is no number between 0 and 1\n"
                "Give what the rate is multiplied with, for example factor=0.1."
            )
        self.factor = factor
        self.min_value = not_negative("Plateau", "min_value", min_value)
        self.cooldown = int(not_negative("Plateau", "cooldown", cooldown))
        self.best: float | None = None
        self.num_bad = self.num_cooling = 0

    def judged(self, value: float, rates: list[float]) -> list[float]:
        """Return the rates after a look at `value`."""
        if self.num_cooling:
            self.num_cooling, self.num_bad = self.num_cooling - 1, 0
        if self.monitor.is_better(value, self.best):
            self.best, self.num_bad = value, 0
        elif not self.num_cooling:
            self.num_bad += 1
        if self.num_bad < self.patience:
            return rates
        self.num_cooling, self.num_bad = self.cooldown, 0
        return [max(rate * self.factor, min(rate, self.min_value)) for rate in rates]

    def state_dict(self) -> dict[str, Any]:
        """Return the best value and the counts."""
        best = math.nan if self.best is None else self.best
        return {"best": best, "num_bad": self.num_bad, "num_cooling": self.num_cooling}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore them."""
        self.best = None if math.isnan(state["best"]) else state["best"]
        self.num_bad, self.num_cooling = state["num_bad"], state["num_cooling"]
