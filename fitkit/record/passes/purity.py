"""Analysis: which operations only compute, so that they may run once, elsewhere or not at all."""

from typing import Any

import torch
from torch import Tensor, fx

from fitkit.record.step_graph import StepGraph


def is_pure(node: fx.Node) -> bool:
    """Tell whether a node is one operation that writes nothing and draws nothing random."""
    target: Any = node.target
    schema: Any = getattr(target, "_schema", None)
    if node.op != "call_function" or schema is None:
        return False
    return not schema.is_mutable and torch.Tag.nondeterministic_seeded not in target.tags


def compute(node: fx.Node, values: dict[fx.Node, Tensor]) -> Any:
    """Run one operation on known values of its arguments, eagerly."""

    def value(arg: fx.Node) -> Any:
        return values[arg]

    args: Any = fx.map_arg(node.args, value)
    kwargs: Any = fx.map_arg(node.kwargs, value)
    target: Any = node.target
    with torch.no_grad():
        return target(*args, **kwargs)


def draws_random(step: StepGraph) -> bool:
    """Tell whether the step draws random numbers."""
    tags = (getattr(node.target, "tags", ()) for node in step.module.graph.nodes)
    return any(torch.Tag.nondeterministic_seeded in tag for tag in tags)
