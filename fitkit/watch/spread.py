"""Histograms and norms on the device, without waiting for it."""

import torch
from torch import Tensor

__all__ = ["LENGTH", "look_at", "norm_of"]

_NUM_BARS = 30
LENGTH = 3 + _NUM_BARS


def look_at(values: Tensor) -> Tensor:
    """Return the norm of some values, their finite range, and how many lie in equal parts of it.

    Args:
        values: Any shape, floats, with at least one element.

    Returns:
        Float32, shape (LENGTH,): Euclidean norm, smallest, largest, counts. The smallest of values
        of which none is finite is infinite.

    Syncs: never; `torch.histc` would.
    """
    flat = values.detach().flatten().float()
    is_finite = flat.isfinite()
    low = flat.where(is_finite, torch.inf).amin()
    high = flat.where(is_finite, -torch.inf).amax()
    # Values that are all the same get a narrow range around them.
    margin = (high == low) * (high.abs() * 1e-3 + 1e-6)
    low, high = low - margin, high + margin
    width = (high - low).clamp_min(torch.finfo(torch.float32).tiny)
    places = ((flat - low) / width * _NUM_BARS).where(is_finite, 0)
    bars = places.clamp_(0, _NUM_BARS - 1).long()
    counts = flat.new_zeros(_NUM_BARS).index_add_(0, bars, is_finite.float())
    return torch.cat([torch.stack([norm_of(flat), low, high]), counts])


def norm_of(values: Tensor) -> Tensor:
    """Return the Euclidean norm of values of any shape, float32, shape (). Syncs: never."""
    return values.float().square().sum().sqrt()
