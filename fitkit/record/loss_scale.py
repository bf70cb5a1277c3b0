"""Keras's dynamic loss scaling without branches, so that it can be recorded.

`keras.optimizers.LossScaleOptimizer` asks a tensor whether all gradients are finite, and skips the
update if not. Here the update is always computed and then taken or not, element by element. The
values are the same; the price is a copy of weights and slots, which a compiler removes.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def apply_without_branches(
    optimizer: Any, gradients: Sequence[Tensor | None], variables: Sequence[Any]
) -> None:
    """Do what ``optimizer.apply(gradients, variables)`` does, on any outcome. No sync.

    Args:
        optimizer: A built `keras.optimizers.LossScaleOptimizer`.
        gradients: The gradients of the scaled loss, one per variable.
        variables: The Keras variables to update.
    """
    finite = optimizer.check_finite(list(gradients))
    scale, count = optimizer.dynamic_scale.value, optimizer.step_counter.value
    inner = optimizer.inner_optimizer
    state = [v.value for v in (*variables, *inner.variables)]
    with torch.no_grad():
        before = [tensor.clone() for tensor in state]
        inner.apply([g if g is None else g / scale for g in gradients], list(variables))
        for tensor, old in zip(state, before, strict=True):
            tensor.copy_(torch.where(finite, tensor, old))
        grow = finite & (count == optimizer.dynamic_growth_steps - 1)
        scale.copy_(torch.where(finite, torch.where(grow, scale * 2.0, scale), scale * 0.5))
        count.copy_(torch.where(finite & ~grow, count + 1, torch.zeros_like(count)))
