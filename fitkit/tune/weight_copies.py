"""Copies of the tensors that make up a trained model."""

from collections.abc import Sequence

from torch import Tensor

from fitkit.loop.snapshot import trained_tensors

__all__ = ["copy_of", "trained_tensors"]


def copy_of(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return detached copies, on the same devices. Syncs: never."""
    return [tensor.detach().clone() for tensor in tensors]
