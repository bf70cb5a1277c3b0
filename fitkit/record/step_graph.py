"""The traced step as data: one graph over flat tensors, and the tensors it runs on."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self, final

from torch import Tensor, fx
from torch.utils import _pytree as pytree


@final
@dataclass(slots=True)
class StepGraph:
    """A step as a graph without Python state.

    The module's placeholders are the step's inputs, then one per tensor of `state`, in order; its
    output is a flat tuple. Passes edit graph and state together. State is the live objects
    (parameters, optimizer slots, metric sums): a program reads and writes them in place, so that
    assignments made between steps are seen.

    Attributes:
        module: The graph.
        num_inputs: How many placeholders are inputs of the step.
        state: The tensors of the other placeholders.
        constants: Those of `state` that stand for Python numbers: nobody ever writes them.
        spec: How the flat outputs are nested.
        num_branches: Truth tests answered for the step while tracing.
        trace_s: Seconds the trace took.
        scratch: Those of `state` that only carry a value inside one run.
    """

    module: fx.GraphModule
    num_inputs: int
    state: list[Tensor]
    constants: set[Tensor]
    spec: pytree.TreeSpec
    num_branches: int = 0
    trace_s: float = 0.0
    scratch: set[Tensor] = field(default_factory=set[Tensor])

    @property
    def placeholders(self) -> list[fx.Node]:
        """The graph's placeholders: inputs, then state."""
        return [n for n in self.module.graph.nodes if n.op == "placeholder"]

    @property
    def output(self) -> fx.Node:
        """The graph's output node."""
        return next(n for n in reversed(self.module.graph.nodes) if n.op == "output")

    @property
    def num_nodes(self) -> int:
        """How many nodes the graph has, placeholders included."""
        return len(self.module.graph.nodes)

    def tensors(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Return what the graph is called with, for given inputs of the step."""
        return [*inputs, *self.state]

    def is_constant(self, placeholder: fx.Node) -> bool:
        """Tell whether a placeholder stands for a tensor that never changes."""
        index = self.placeholders.index(placeholder) - self.num_inputs
        return index >= 0 and self.state[index] in self.constants

    def add_state(self, tensor: Tensor, name: str) -> fx.Node:
        """Add a tensor to the state and return its new placeholder."""
        graph = self.module.graph
        last = self.placeholders[-1:]
        place = graph.inserting_after(last[0]) if last else graph.inserting_before()
        with place:
            node = graph.placeholder(name)
        self.state.append(tensor)
        return node

    def copy(self) -> Self:
        """Return a copy that passes can edit; it shares the tensors, not the graph."""
        graph = fx.Graph()
        graph.output(graph.graph_copy(self.module.graph, {}))
        return type(self)(
            fx.GraphModule(self.module, graph),
            self.num_inputs,
            list(self.state),
            set(self.constants),
            self.spec,
            self.num_branches,
            self.trace_s,
            set(self.scratch),
        )
