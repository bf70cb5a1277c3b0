"""Decompositions: a long sum in two stages, because compiled code adds one after the other.

Inductor's C++ sums up to 4096 rows into one accumulator, where eager's kernels sum pairwise, with a
small part of the rounding error. A batch normalization that takes its variance as mean of squares
minus square of mean makes more of it, and every pooling window and ReLU behind it turns its
gradient the other way more often.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["LONG_SUMS"]

_LONG = 256  # rows; eager's error is that of a sum of this length or less
_EXACT_BETWEEN = (torch.float32, torch.float64)  # others are rounded from stage to stage


def _sum(x: Tensor, dim: Sequence[int] | None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """Sum the inner ones of `dim` first, and then the first one; not if that is no better."""
    dims = sorted(d % x.dim() for d in dim or range(x.dim()))
    # A dimension of one is nothing to sum: what the first stage leaves behind is summed at once.
    several = [d for d in dims if x.shape[d] != 1]
    short = len(several) < 2 or math.prod(x.shape[d] for d in several) <= _LONG
    if short or dtype is not None or x.dtype not in _EXACT_BETWEEN or x.device.type != "cpu":
        return NotImplemented
    inner = torch.ops.aten.sum.dim_IntList(x, dims[1:], True)
    return torch.ops.aten.sum.dim_IntList(inner, dims[:1] if keepdim else dims, keepdim)


def _mean(x: Tensor, dim: Sequence[int] | None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    total = _sum(x, dim, keepdim, dtype=dtype)
    num = math.prod(x.shape[d] for d in dim or range(x.dim()))
    return total if total is NotImplemented else total / num


LONG_SUMS = {torch.ops.aten.sum.dim_IntList: _sum, torch.ops.aten.mean.dim: _mean}
