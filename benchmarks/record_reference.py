"""A recorded step once more: in float64, and with the branches that it takes.

A network with ReLU or max pooling is continuous, its gradient is not. Where two values of a pooling
window are equal but for rounding, or an input of a ReLU is zero but for rounding, the gradient
takes one way or another as the rounding falls. Two eager programs that sum in another order differ
as much at such a point.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from fitkit.record.backends import Runner
from fitkit.record.backends.inductor import inductor
from fitkit.record.backends.interpret import interpret
from fitkit.record.passes.writes import written_state
from fitkit.record.step_graph import StepGraph

aten = torch.ops.aten


class Outcome(NamedTuple):
    """What a step has come to.

    Attributes:
        state: The tensors that the step changes, afterwards.
        branches: Where gradients went: per ReLU whether it let a value through, per max pooling the
            indices that it chose.
    """

    state: list[Tensor]
    branches: list[Tensor]

    def same_branches(self, other: "Outcome") -> bool:
        """Return whether all gradients took the same way."""
        return all(map(torch.equal, self.branches, other.branches))


class Reference:
    """Runs a recorded step again, from a state and a batch, and shows its branches.

    Args:
        step: The recorded step.
        inputs: Inputs of a step, to compile for.
        backend: What replays the step.
    """

    def __init__(self, step: StepGraph, inputs: Sequence[Tensor], backend: str) -> None:
        self.step, self.num_branches = with_branches(step)
        self.written = written_state(step)
        compiled = backend != "interpret"
        self._runs: dict[str, Runner] = {
            "eager": interpret(self.step),
            "replay": inductor(self.step, inputs) if compiled else interpret(self.step),
        }

    @torch.no_grad()
    def run(self, how: str, inputs: Sequence[Tensor]) -> Outcome:
        """Run one step on the live state: "eager" by eager's operations, "replay" as compiled."""
        results = self._runs[how](inputs)
        return Outcome([tensor.clone() for tensor in self.written], self._branches(results))

    @torch.no_grad()
    def run_float64(self, inputs: Sequence[Tensor]) -> Outcome:
        """Run one step in float64, on copies. Random numbers are those of the float32 step."""
        copies = [_doubled(tensor) for tensor in self.step.state]
        results: Any = _Float64(self.step.module).run(*map(_doubled, inputs), *copies)
        places = {id(tensor): place for place, tensor in enumerate(self.step.state)}
        return Outcome([copies[places[id(t)]] for t in self.written], self._branches(results))

    def _branches(self, results: Sequence[Tensor]) -> list[Tensor]:
        return [result.clone() for result in results[len(results) - self.num_branches :]]


def with_branches(step: StepGraph) -> tuple[StepGraph, int]:
    """Return a copy of the step that also returns its branches, last, and how many they are."""
    step = step.copy()
    graph, output = step.module.graph, step.output
    branches: list[fx.Node] = []
    for node in list(graph.nodes):
        with graph.inserting_before(output):
            if node.target is aten.threshold_backward.default:  # gradient, output, threshold
                branches.append(graph.call_function(aten.gt.Scalar, node.args[1:]))
            elif node.target is aten.max_pool2d_with_indices_backward.default:
                branches.append(node.args[-1])
    results: Any = output.args[0]
    output.args = ((*results, *branches),)
    step.spec = pytree.tree_structure(list(output.args[0]))
    step.module.recompile()
    return step, len(branches)


class _Float64(fx.Interpreter):
    """Operations on float64 tensors, whatever dtype the graph asks for."""

    def call_function(self, target: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        if torch.Tag.nondeterministic_seeded in getattr(target, "tags", ()):
            return _drawn(target, args, kwargs)
        if kwargs.get("dtype") is torch.float32:
            kwargs = {**kwargs, "dtype": torch.float64}
        return super().call_function(target, args, kwargs)


def _drawn(target: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Draw in float32, as the step does, so that a generator gives the same numbers."""
    results = target(*pytree.tree_map_only(Tensor, _halved, args), **kwargs)
    if target._schema.is_mutable:
        return args[0].copy_(results)
    return pytree.tree_map_only(Tensor, _doubled, results)


def _doubled(tensor: Tensor) -> Tensor:
    dtype = torch.float64 if tensor.is_floating_point() else tensor.dtype
    return tensor.detach().to(dtype, copy=True)


def _halved(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor
