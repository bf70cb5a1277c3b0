"""Pass: compute 0-d arithmetic once per step, not once per element of what uses it.

A compiler fuses an optimizer's bias correction, two ``pow`` of a 0-d tensor, into the loop over
the parameters and evaluates it there per vector: half the time of a small model's step.
"""

import torch
from torch import Tensor, fx

from fitkit.record.passes.purity import is_pure
from fitkit.record.step_graph import StepGraph

_COPY = torch.ops.aten.copy_.default


def realize_scalars(step: StepGraph) -> None:
    """Store each 0-d result that larger loops use, and let them load it. For functional graphs.

    Only arithmetic that needs no result of the step itself counts: on learning rates, step
    counters, number tensors. The stored copy is a tensor of the step's own; published results
    keep the value, never the store, which the next run overwrites.
    """
    graph = step.module.graph
    scalars = _scalar_arithmetic(graph)
    for node in scalars:
        users = [u for u in node.users if _is_loop(u) and u not in scalars]
        if not users:
            continue
        value: Tensor = node.meta["val"]
        store = torch.empty(value.shape, dtype=value.dtype, device=value.device)
        slot = step.add_state(store, f"scratch_{node.name}")
        step.scratch.add(store)
        slot.meta["val"] = value
        with graph.inserting_after(node):
            stored = graph.call_function(_COPY, (slot, node))
        stored.meta.update(node.meta)
        for user in users:
            user.replace_input_with(node, stored)
    step.module.recompile()


def _scalar_arithmetic(graph: fx.Graph) -> list[fx.Node]:
    """Return 0-d results that depend on 0-d placeholders alone, in order."""
    known: dict[fx.Node, None] = {}
    for node in graph.nodes:
        candidate = _is_scalar(node) and (node.op == "placeholder" or is_pure(node))
        if candidate and all(arg in known for arg in node.all_input_nodes):
            known[node] = None
    return [n for n in known if n.op != "placeholder"]


def _is_scalar(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.dim() == 0


def _is_loop(user: fx.Node) -> bool:
    return user.op == "call_function" and user.target is not _COPY
