"""Histograms and norms on the device, without waiting for it."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

__all__ = ["LENGTH", "look_at", "norms_of"]

_NUM_BARS = 30
_CHUNK = 1 << 20  # numbers that are looked at together: few, so that little memory is taken
LENGTH = 3 + _NUM_BARS


def look_at(tensors: Sequence[Tensor]) -> Tensor:
    """Return of each tensor its norm, finite range, and how many lie in equal parts of it.

    Args:
        tensors: At least one; any shapes, floats, with at least one element each.

    Returns:
        Float32, shape (tensors, LENGTH), on the device of the first: Euclidean norm, smallest,
        largest, counts. The smallest of values of which none is finite is infinite.

    Syncs: never; `torch.histc` would.
    """
    chunks = [_chunks(tensor) for tensor in tensors]
    low = _each(chunks, lambda chunk: _finite(chunk, torch.inf).amin(), torch.amin)
    high = _each(chunks, lambda chunk: _finite(chunk, -torch.inf).amax(), torch.amax)
    # Values that are all the same get a narrow range around them.
    margin = (high == low) * (high.abs() * 1e-3 + 1e-6)
    low, high = low - margin, high + margin
    width = (high - low).clamp_min(torch.finfo(torch.float32).tiny)
    ranges = zip(chunks, low.unbind(), width.unbind(), strict=True)
    counts = torch.stack([_counts(*each).to(low.device) for each in ranges])
    return torch.cat([torch.stack([norms_of(tensors), low, high], 1), counts], 1)


def norms_of(tensors: Sequence[Tensor]) -> Tensor:
    """Return the Euclidean norm of each tensor, float32, shape (tensors,). Syncs: never."""
    chunks = [_chunks(tensor) for tensor in tensors]
    norm = cast(Any, torch).linalg.vector_norm
    return _each(chunks, lambda chunk: norm(chunk, dtype=torch.float32), norm)


def _counts(chunks: Sequence[Tensor], low: Tensor, width: Tensor) -> Tensor:
    """Return how many values lie in each part of a range; int64 (_NUM_BARS,)."""
    device = chunks[0].device
    low, width = low.to(device), width.to(device)
    counts = torch.zeros(_NUM_BARS + 2, dtype=torch.int64, device=device)
    one = torch.ones((), dtype=torch.int64, device=device)
    # One bar more for the largest value, and one for what is not finite.
    last = _NUM_BARS + 1
    for chunk in chunks:
        places = (chunk.float() - low).div_(width).mul_(_NUM_BARS)
        bars = places.nan_to_num_(last, last, last).clamp_(0, last).int()
        counts.index_add_(0, bars, one.expand(len(bars)))
    counts[_NUM_BARS - 1] += counts[_NUM_BARS]
    return counts[:_NUM_BARS]


def _each(
    chunks: Sequence[Sequence[Tensor]],
    look: Callable[[Tensor], Tensor],
    join: Callable[[Tensor], Tensor],
) -> Tensor:
    """Return a number of each tensor, which are in chunks; on the device of the first."""
    found: list[Tensor] = []
    for parts in chunks:
        looks = [look(part) for part in parts]
        found.append(looks[0] if len(looks) == 1 else join(torch.stack(looks)))
    return torch.stack([each.to(found[0].device) for each in found])


def _chunks(values: Tensor) -> Sequence[Tensor]:
    flat: Any = values.detach().flatten()
    return flat.split(_CHUNK)


def _finite(values: Tensor, other: float) -> Tensor:
    """Return the values, float32, with another one for those that are not finite."""
    return values.float().nan_to_num(other, other, other)
