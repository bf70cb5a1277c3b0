"""Backends: each turns a `StepGraph` into a callable over flat tensors.

The callable takes the step's inputs, works on its live state, and returns the flat outputs, which
no later run overwrites. It must be called where gradients are not recorded.
"""

from collections.abc import Callable, Sequence

from torch import Tensor

Runner = Callable[[Sequence[Tensor]], Sequence[Tensor]]

__all__ = ["Runner"]
