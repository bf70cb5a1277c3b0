"""Arithmetic on lists of tensors, one call for all of them. An empty list is nothing to do."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

__all__ = [
    "add_",
    "clamp_",
    "copy_",
    "copy_of",
    "div_",
    "lerp_",
    "max_norms",
    "mul_",
    "norm",
    "norms",
]

_torch: Any = cast(Any, torch)  # torch's own optimizers use these; they have no public names


@torch.no_grad()
def copy_(tensors: Sequence[Tensor], others: Sequence[Tensor]) -> None:
    """Write `others` into `tensors`, weights too: recorded programs stay valid."""
    if tensors:
        _torch._foreach_copy_(list(tensors), list(others))


def copy_of(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return detached copies, on the same devices. Syncs: never."""
    return [tensor.detach().clone() for tensor in tensors]


def add_(tensors: Sequence[Tensor], others: Sequence[Tensor], *, factor: float = 1.0) -> None:
    """Add `factor * others` to `tensors`."""
    if tensors:
        _torch._foreach_add_(list(tensors), list(others), alpha=factor)


def mul_(tensors: Sequence[Tensor], factor: float | Tensor) -> None:
    """Multiply `tensors` by a number or a tensor of shape ()."""
    if tensors:
        _torch._foreach_mul_(list(tensors), factor)


def div_(tensors: Sequence[Tensor], divisor: Tensor) -> None:
    """Divide `tensors` by a tensor of shape ()."""
    if tensors:
        _torch._foreach_div_(list(tensors), divisor)


def clamp_(tensors: Sequence[Tensor], limit: float) -> None:
    """Clip every element to [-limit, limit]."""
    if tensors:
        _torch._foreach_clamp_max_(list(tensors), limit)
        _torch._foreach_clamp_min_(list(tensors), -limit)


def lerp_(tensors: Sequence[Tensor], ends: Sequence[Tensor], weight: float) -> None:
    """Move `tensors` towards `ends`: t + weight * (end - t)."""
    if tensors:
        _torch._foreach_lerp_(list(tensors), list(ends), weight)


def norms(tensors: Sequence[Tensor], order: float = 2.0) -> Tensor:
    """Return the norm of each tensor, shape (tensors,), on the device of the first one."""
    if not tensors:
        return torch.zeros(1)
    each: list[Tensor] = _torch._foreach_norm(list(tensors), order)
    return torch.stack([norm.to(tensors[0].device) for norm in each])


def norm(tensors: Sequence[Tensor], order: float = 2.0) -> Tensor:
    """Return the norm of all tensors as one vector, shape ()."""
    return _torch.linalg.vector_norm(norms(tensors, order), order)


def max_norms(tensors: Sequence[Tensor]) -> Tensor:
    """Return the largest magnitude of each tensor; infinite or nan where an element is."""
    return norms(tensors, float("inf"))
