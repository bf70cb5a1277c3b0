"""Decompositions: what the compiler has no kernel for on lists of tensors, tensor by tensor."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

__all__ = ["FOREACH"]


def _norm(tensors: Sequence[Tensor], ord: Any = 2, dtype: Any = None) -> Any:
    """Return the norm of each tensor; those on a GPU keep their one kernel for all."""
    if any(tensor.device.type != "cpu" for tensor in tensors):
        return NotImplemented
    norm: Any = cast(Any, torch).linalg.vector_norm
    return [norm(tensor, ord, dtype=dtype) for tensor in tensors]


FOREACH = {torch.ops.aten._foreach_norm.Scalar: _norm}
