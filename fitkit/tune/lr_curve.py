"""What a search for a learning rate has found."""

from dataclasses import dataclass
from typing import Any, final

import numpy as np

from fitkit.loop.figure import axes_or_new

__all__ = ["LRCurve"]


@final
@dataclass(frozen=True)
class LRCurve:
    """The loss of each update of a search, by learning rate.

    Attributes:
        rates: Ascending.
        losses: Of the batches, each before the update with its rate.
        smoothed: Exponential means of the losses, corrected for their beginning.
    """

    rates: list[float]
    losses: list[float]
    smoothed: list[float]

    def __repr__(self) -> str:
        """Return how many rates there are, and the suggestion."""
        return f"LRCurve({len(self.rates)} rates, suggestion={self.suggestion})"

    @property
    def suggestion(self) -> float | None:
        """The rate at which the smoothed loss falls fastest over log(rate).

        None if the search ended before it fell anywhere.
        """
        lowest = int(np.argmin(self.smoothed)) + 1 if self.smoothed else 0
        if lowest < 3:
            return None
        slopes = np.gradient(np.array(self.smoothed[:lowest]), np.log(self.rates[:lowest]))
        return self.rates[int(np.argmin(slopes))]

    def plot(self, *, axes: Any = None) -> Any:
        """Draw the losses over the rates, and the suggestion; return the matplotlib axes.

        Raises:
            ImportError: If matplotlib is not installed.
        """
        axes = axes_or_new(axes)
        axes.plot(self.rates, self.losses, alpha=0.3, label="loss")
        axes.plot(self.rates, self.smoothed, label="smoothed")
        if self.suggestion is not None:
            axes.axvline(
                self.suggestion, linestyle="--", label=f"suggestion: {self.suggestion:.2g}"
            )
        axes.set(xscale="log", xlabel="learning rate", ylabel="loss")
        low, first = min(self.losses, default=0.0), (self.smoothed or [0.0])[0]
        if low < first:  # a search ends where the loss explodes, which would flatten all the rest
            axes.set_ylim(low - (first - low) / 10, first + (first - low) / 2)
        axes.legend()
        return axes
