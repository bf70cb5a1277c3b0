"""Analysis: which values of a graph are written in place."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from fitkit.record.step_graph import StepGraph

# Batch norm in training writes its running mean and variance; its schema does not say so.
BATCH_NORMS = frozenset(
    {
        torch.ops.aten.native_batch_norm.default,
        torch.ops.aten.cudnn_batch_norm.default,
        torch.ops.aten.miopen_batch_norm.default,
    }
)


def written(graph: fx.Graph) -> set[fx.Node]:
    """Return every node whose memory some operation writes, found through its views too.

    A view is followed back to the node that owns the memory; the owner is returned, not the view.
    """
    return set(_writes(graph))


def _writes(graph: fx.Graph) -> Counter[fx.Node]:
    """Return how many operations write the memory that a node owns."""
    owner: dict[fx.Node, fx.Node] = {}
    result = Counter[fx.Node]()
    for node in graph.nodes:
        aliased = list(_aliased(node))
        owner[node] = _owner(node, aliased, owner)
        result.update(owner[arg] for arg, writes in aliased if writes)
    return result


def owners(graph: fx.Graph) -> dict[fx.Node, fx.Node]:
    """Return, per node, the node that owns its memory: itself unless it is a view."""
    owner: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        owner[node] = _owner(node, list(_aliased(node)), owner)
    return owner


def _owner(
    node: fx.Node, aliased: list[tuple[fx.Node, bool]], owner: dict[fx.Node, fx.Node]
) -> fx.Node:
    shares = aliased and node.target not in BATCH_NORMS  # whose results are new tensors
    return owner[aliased[0][0]] if shares else node


def eliminate_unread(graph: fx.Graph) -> None:
    """Remove operations without readers, but no write and no random draw."""
    graph.eliminate_dead_code(is_impure_node=lambda n: n.is_impure() or _is_training_norm(n))


def _is_training_norm(node: fx.Node) -> bool:
    return node.target in BATCH_NORMS and bool(node.args[5])


def written_placeholders(graph: fx.Graph) -> list[fx.Node]:
    """Return the placeholders whose tensor a run of the graph changes, in order."""
    changed = written(graph)
    return [n for n in graph.nodes if n.op == "placeholder" and n in changed]


def written_state(step: StepGraph) -> list[Tensor]:
    """Return the tensors of the state that a run of the step changes."""
    changed = written(step.module.graph)
    return [t for t, node in _state(step) if node in changed]


def written_once(step: StepGraph) -> list[Tensor]:
    """Return the tensors of the state that a single operation of the step writes."""
    writes = _writes(step.module.graph)
    return [t for t, node in _state(step) if writes[node] == 1]


def _state(step: StepGraph) -> Iterator[tuple[Tensor, fx.Node]]:
    return zip(step.state, step.placeholders[step.num_inputs :], strict=True)


def _aliased(node: fx.Node) -> Iterator[tuple[fx.Node, bool]]:
    """Yield (argument, is written) for each argument whose memory the operation shares."""
    schema: Any = getattr(node.target, "_schema", None)
    if schema is None:
        # getitem on a list of results: each result is its own memory or its argument's.
        yield from ((arg, False) for arg in node.all_input_nodes[:1] if node.op == "call_function")
        return
    if _is_training_norm(node):
        yield from ((arg, True) for arg in node.args[3:5] if isinstance(arg, fx.Node))
    for i, parameter in enumerate(schema.arguments):
        if parameter.alias_info is None:
            continue
        value = node.args[i] if i < len(node.args) else node.kwargs.get(parameter.name)
        for leaf in pytree.tree_leaves(value):
            if isinstance(leaf, fx.Node):
                yield leaf, bool(parameter.alias_info.is_write)
