"""Histograms and norms on the device, without waiting for it."""

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["LENGTH", "look_at", "norms_of"]

_torch: Any = torch  # which has no types for operations on lists
_NUM_BARS = 30
_CHUNK = 1 << 20  # numbers that are looked at together: few, so that little memory is taken
LENGTH = 3 + _NUM_BARS


class _Group(NamedTuple):
    """Pieces of tensors, flat and on one device, that are looked at together.

    An operation takes longer to begin than to look at a small tensor.
    """

    owners: list[int]  # which tensor each is of
    pieces: list[Tensor]
    sizes: list[int]

    def joined(self) -> tuple[Tensor, Sequence[Tensor]]:
        """Return a copy of all numbers, float32, and the parts of it that are the pieces."""
        numbers: Any = torch.cat([piece.float() for piece in self.pieces])
        return numbers, numbers.split(self.sizes)


def look_at(tensors: Sequence[Tensor]) -> Tensor:
    """Return of each tensor its norm, finite range, and how many lie in equal parts of it.

    Args:
        tensors: At least one; any shapes, floats, with at least one element each.

    Returns:
        Float32, shape (tensors, LENGTH), on the device of the first: Euclidean norm, smallest,
        largest, counts. The smallest of values of which none is finite is infinite.

    Syncs: never; `torch.histc` would.
    """
    groups = _groups(tensors)
    down, high = _each(groups, _reaches, lambda rows: rows.amax(0)).unbind(1)
    low = -down
    # Values that are all the same get a narrow range around them.
    margin = (high == low) * (high.abs() * 1e-3 + 1e-6)
    low, high = low - margin, high + margin
    width = (high - low).clamp_min(torch.finfo(torch.float32).tiny)
    counts = _each(groups, lambda group: _counts(group, low, width), lambda rows: rows.sum(0))
    return torch.cat([torch.stack([_norms(groups), low, high], 1), counts], 1)


def norms_of(tensors: Sequence[Tensor]) -> Tensor:
    """Return the Euclidean norm of each tensor, float32, shape (tensors,). Syncs: never."""
    return _norms(_groups(tensors))


def _norms(groups: Sequence[_Group]) -> Tensor:
    def norms(group: _Group) -> Tensor:
        return torch.stack(_torch._foreach_norm([piece.float() for piece in group.pieces]))

    return _each(groups, norms, _torch.linalg.vector_norm)


def _reaches(group: _Group) -> Tensor:
    """Return how far the finite numbers of each piece reach down and up, shape (pieces, 2)."""
    numbers, parts = group.joined()
    none = -torch.inf
    numbers.nan_to_num_(none, none, none)
    up = _torch._foreach_max(parts)
    numbers.neg_().nan_to_num_(none, none, none)
    return torch.stack([*_torch._foreach_max(parts), *up]).view(2, -1).t()


def _counts(group: _Group, low: Tensor, width: Tensor) -> Tensor:
    """Return how many values lie in each part of a range; int64 (pieces, _NUM_BARS)."""
    numbers, parts = group.joined()
    lows, widths = (each.to(numbers.device).unbind() for each in (low, width))
    _torch._foreach_sub_(parts, [lows[owner] for owner in group.owners])
    _torch._foreach_div_(parts, [widths[owner] for owner in group.owners])
    # One bar more for the largest value, and one for what is not finite.
    num_bars = _NUM_BARS + 2
    last = num_bars - 1
    bars: Any = numbers.mul_(_NUM_BARS).nan_to_num_(last, last, last).clamp_(0, last).int()
    num_all = num_bars * len(parts)
    _torch._foreach_add_(bars.split(group.sizes), [*range(0, num_all, num_bars)])
    counts = _tally(bars, num_all).view(-1, num_bars)
    counts[:, _NUM_BARS - 1] += counts[:, _NUM_BARS]
    return counts[:, :_NUM_BARS]


def _tally(places: Tensor, length: int) -> Tensor:
    """Return how often each number from 0 on is there; int64 (length,). `bincount` would sync."""
    counts = torch.zeros(length, dtype=torch.int64, device=places.device)
    one = torch.ones((), dtype=torch.int64, device=places.device)
    return counts.index_add_(0, places, one.expand(len(places)))


def _each(
    groups: Sequence[_Group], look: Callable[[_Group], Tensor], join: Callable[[Tensor], Tensor]
) -> Tensor:
    """Return what is seen of each tensor, shape (tensors, ...), on the device of the first.

    Args:
        groups: The pieces of the tensors.
        look: Returns a row for each piece of a group.
        join: Makes the rows of the pieces of one tensor a single one.
    """
    home = groups[0].pieces[0].device
    rows: Any = torch.cat([look(group).to(home) for group in groups])
    owners = [owner for group in groups for owner in group.owners]
    if len(owners) == owners[-1] + 1:
        return rows
    numbers = [len([*same]) for _, same in groupby(owners)]
    return torch.stack([join(each) for each in rows.split(numbers)])


def _groups(tensors: Sequence[Tensor]) -> list[_Group]:
    groups: list[_Group] = []
    room, device = 0, None
    for owner, tensor in enumerate(tensors):
        flat: Any = tensor.detach().flatten()
        for piece in flat.split(_CHUNK) if flat.numel() > _CHUNK else (flat,):
            size = piece.numel()
            if size > room or piece.device != device:
                groups.append(_Group([], [], []))
                room, device = _CHUNK, piece.device
            groups[-1].owners.append(owner)
            groups[-1].pieces.append(piece)
            groups[-1].sizes.append(size)
            room -= size
    return groups
