"""Backend shaken: the step with a rounding error in every result, another one at every run.

It tells how far rounding can carry a step: a compiled program that is right is about as far from
the eager step as this one is. (Monte Carlo arithmetic; D. S. Parker, 1997.)
"""

from collections.abc import Sequence
from typing import Any, cast, final

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from fitkit.record.backends import Runner
from fitkit.record.backends.inductor import flushed_denormals, lowered
from fitkit.record.passes.purity import is_pure
from fitkit.record.step_graph import StepGraph

# What only moves or casts values is exact: class indices that come as floats stay what they are.
_EXACT = {
    *("_to_copy", "convert_element_type", "copy", "clone", "where", "masked_fill", "cat", "stack"),
    *("index", "index_select", "gather", "scatter", "embedding"),
    *("ceil", "floor", "round", "sign", "trunc"),
}


def shaken(step: StepGraph, inputs: Sequence[Tensor], *, seed: int = 0) -> Runner:
    """Return a function that runs the operations a compiler is given, and shakes their results.

    Args:
        step: The step; not changed.
        inputs: Example inputs.
        seed: Of the errors.

    Returns:
        A function of the step's inputs.
    """
    step = lowered(step, inputs)
    interpreter = _Shaken(step.module, seed)

    def run(inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        with flushed_denormals():
            return cast("Sequence[Tensor]", interpreter.run(*inputs, *step.state))

    return run


@final
class _Shaken(fx.Interpreter):
    def __init__(self, module: fx.GraphModule, seed: int) -> None:
        super().__init__(module)
        self._seed = seed
        self._noise: dict[torch.device, torch.Generator] = {}  # a step draws from the global ones

    def run_node(self, n: fx.Node) -> Any:
        """Run an operation; if it computes, multiply its results by nearly one."""
        result = super().run_node(n)
        return pytree.tree_map(self._shake, result) if _rounds(n) else result

    def _shake(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        if value.device not in self._noise:
            self._noise[value.device] = torch.Generator(value.device).manual_seed(self._seed)
        noise = torch.empty_like(value, dtype=torch.float64)
        noise.uniform_(-1, 1, generator=self._noise[value.device])
        return (value * (1 + torch.finfo(value.dtype).eps * noise)).to(value.dtype)


def _rounds(node: fx.Node) -> bool:
    """Return whether an operation computes new numbers from others."""
    if not is_pure(node):
        return False
    target: Any = node.target
    is_view = any(result.alias_info is not None for result in target._schema.returns)
    name = target._schema.name.rpartition("::")[2]
    return not is_view and name not in _EXACT and bool(node.all_input_nodes)
