"""A journal of the writes a trace carries out for real, to undo them.

Fake tensors keep a trace from computing, with one exception: where an operation takes a number as
well as a tensor (`add_`, `mul_`, `copy_`) and none of its tensors is fake yet, torch runs it. A
step counter's ``count.add_(1)`` would move by tracing it. A fake tensor of known value, such as
``torch.tensor(1.0)``, does not stop that.
"""

from typing import Any, final

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import (
    _disable_current_modes,  # pyright: ignore[reportPrivateUsage]
)


@final
class Journal:
    """What real tensors held before a trace wrote into them."""

    def __init__(self) -> None:
        self._before: dict[Tensor, Tensor] = {}

    def note(self, args: tuple[Any, ...]) -> None:
        """Take down the tensors that an operation about to write gets, if it may run for real."""
        tensors = [a for a in pytree.tree_leaves(args) if isinstance(a, Tensor)]
        if any(isinstance(t, FakeTensor) and t.constant is None for t in tensors):
            return
        with _disable_current_modes():
            for tensor in tensors:
                if tensor not in self._before and not isinstance(tensor, FakeTensor):
                    self._before[tensor] = tensor.detach().clone()

    def undo(self) -> None:
        """Put back what was taken down; the latest first, because tensors share memory."""
        with torch.no_grad():
            for tensor, value in reversed(self._before.items()):
                tensor.copy_(value)
        self._before.clear()
