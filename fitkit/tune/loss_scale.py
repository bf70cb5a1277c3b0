"""Dynamic loss scaling without a branch."""

from collections.abc import Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor

from fitkit.tune.tensor_lists import max_norms, mul_

__all__ = ["LossScale"]

_LARGEST = 2.0**127  # doubling stops here: an infinite scale would never come back


@final
class LossScale:
    """A loss scale that halves when a gradient is not finite, and doubles after many that were.

    Everything is a tensor of shape () that is written in place.

    Args:
        initial: The first scale.
        growth_every: After so many updates in a row with finite gradients the scale doubles.
        device: Where the model is.

    Attributes:
        scale: float32.
        finite: bool; whether the last gradients were.
        num_skipped: int64; updates with others so far.
    """

    def __init__(self, initial: float, growth_every: int, device: torch.device) -> None:
        self._growth_every = growth_every
        self.scale = torch.full((), initial, device=device)
        self.finite = torch.ones((), dtype=torch.bool, device=device)
        self.num_skipped = torch.zeros((), dtype=torch.int64, device=device)
        self._num_finite = torch.zeros((), dtype=torch.int64, device=device)

    def unscale(self, gradients: Sequence[Tensor]) -> None:
        """Divide the gradients by the scale in place, and see whether they are finite."""
        self.finite.copy_(max_norms(gradients).isfinite().all())
        mul_(gradients, self.scale.reciprocal())

    def update(self) -> None:
        """Adapt the scale to what the last gradients were."""
        num_finite = torch.where(self.finite, self._num_finite + 1, 0)
        grows = num_finite == self._growth_every
        grown = torch.where(grows, (self.scale * 2.0).clamp(max=_LARGEST), self.scale)
        self.scale.copy_(torch.where(self.finite, grown, self.scale * 0.5))
        self._num_finite.copy_(torch.where(grows, 0, num_finite))
        self.num_skipped.add_(~self.finite)

    def state_dict(self) -> dict[str, Any]:
        """Return copies of the scale and the counts."""
        held = {"scale": self.scale, "num_finite": self._num_finite}
        return {n: t.clone() for n, t in {**held, "num_skipped": self.num_skipped}.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self.scale.copy_(state["scale"])
        self._num_finite.copy_(state["num_finite"])
        self.num_skipped.copy_(state["num_skipped"])
