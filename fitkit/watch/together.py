"""Batches of a pass that are looked at together: a look is many small operations."""

from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor

__all__ = ["Together"]

_ENOUGH = 1 << 20  # numbers: few, so that little memory is taken


@final
class Together:
    """Collects copies of small batches, and has them looked at as one.

    Args:
        look: Called with the parts of one or more batches, joined. A batch with parts that are no
            tensors (batch, ...) is looked at alone; so are those of different kinds.
    """

    def __init__(self, look: Callable[..., object]) -> None:
        self._look = look
        self._kind: list[Any] = []
        self._batches: list[list[Tensor]] = []
        self._size = 0

    def add(self, *parts: Any) -> None:
        """Take a batch. Syncs: never."""
        if not all(isinstance(part, Tensor) and part.dim() for part in parts):
            self.finish()
            self._look(*parts)
            return
        kind = [(part.shape[1:], part.dtype, part.device) for part in parts]
        if kind != self._kind:
            self.finish()
            self._kind = kind
        size = sum(part.numel() for part in parts)
        if not self._batches and size >= _ENOUGH:
            self._look(*parts)
            return
        # Copies: a replayed step writes to the same memory again.
        self._batches.append([part.detach().clone() for part in parts])
        self._size += size
        if self._size >= _ENOUGH:
            self.finish()

    def finish(self) -> None:
        """Have the batches looked at that were collected."""
        batches, self._batches, self._size = self._batches, [], 0
        if batches:
            self._look(*[torch.cat(column) for column in zip(*batches, strict=True)])
