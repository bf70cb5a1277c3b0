"""Histograms and norms on the device, without waiting for it."""

from typing import Any

import torch
from torch import Tensor

__all__ = ["LENGTH", "look_at", "norm_of"]

_NUM_BARS = 30
_CHUNK = 1 << 20  # numbers that are looked at together: few, so that little memory is taken
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
    chunks = _chunks(values)
    low = torch.stack([_finite(chunk, torch.inf).amin() for chunk in chunks]).amin()
    high = torch.stack([_finite(chunk, -torch.inf).amax() for chunk in chunks]).amax()
    # Values that are all the same get a narrow range around them.
    margin = (high == low) * (high.abs() * 1e-3 + 1e-6)
    low, high = low - margin, high + margin
    width = (high - low).clamp_min(torch.finfo(torch.float32).tiny)
    counts = torch.zeros(_NUM_BARS, dtype=torch.int64, device=values.device)
    for chunk in chunks:
        is_finite = chunk.isfinite()
        places = ((chunk.float() - low) / width * _NUM_BARS).where(is_finite, 0)
        bars = places.clamp_(0, _NUM_BARS - 1).long()
        counts.index_add_(0, bars, is_finite.long())
    return torch.cat([torch.stack([norm_of(values), low, high]), counts])


def norm_of(values: Tensor) -> Tensor:
    """Return the Euclidean norm of values of any shape, float32, shape (). Syncs: never."""
    chunks = _chunks(values)
    return torch.stack([chunk.float().square().sum() for chunk in chunks]).sum().sqrt()


def _chunks(values: Tensor) -> list[Tensor]:
    flat: Any = values.detach().flatten()
    return list(flat.split(_CHUNK))


def _finite(values: Tensor, other: float) -> Tensor:
    numbers = values.float()
    return numbers.where(numbers.isfinite(), other)
