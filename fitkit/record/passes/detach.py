"""Pass: drop ``detach`` and ``alias``, which do nothing where no gradients are recorded."""

import torch

from fitkit.record.step_graph import StepGraph

_NOTHING = frozenset(
    {
        torch.ops.aten.detach.default,
        torch.ops.aten.alias.default,
        torch.ops.aten.lift_fresh.default,
    }
)


def drop_detach(step: StepGraph) -> None:
    """Let users of a detached tensor use the tensor itself. Exact: both share their memory."""
    graph = step.module.graph
    for node in list(graph.nodes):
        if node.target in _NOTHING:
            node.replace_all_uses_with(node.all_input_nodes[0])
            graph.erase_node(node)
    step.module.recompile()
