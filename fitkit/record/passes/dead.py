"""Pass: drop results that nobody reads."""

from fitkit.record.passes.writes import eliminate_unread
from fitkit.record.step_graph import StepGraph


def drop_unread(step: StepGraph) -> None:
    """Remove operations without readers, then state without readers.

    Kept, though nobody reads them: writes in place (their effect is the point) and random draws
    (dropping one would shift all later ones).
    """
    graph = step.module.graph
    eliminate_unread(graph)
    for i, node in reversed(list(enumerate(step.placeholders))):
        if i >= step.num_inputs and not node.users:
            graph.erase_node(node)
            del step.state[i - step.num_inputs]
    step.module.recompile()
