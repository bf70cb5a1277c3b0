"""Pass: turn the tensors a traced module holds as attributes into arguments of its graph."""

from torch import Tensor, fx
from torch.utils import _pytree as pytree

from fitkit.record.step_graph import StepGraph


def lift_attributes(
    module: fx.GraphModule, num_inputs: int, constant_ids: frozenset[int], spec: pytree.TreeSpec
) -> StepGraph:
    """Make a step graph of a traced module: one placeholder per distinct tensor it refers to.

    Args:
        module: A traced module; edited in place.
        num_inputs: How many placeholders it has.
        constant_ids: The ``id`` of the tensors that stand for Python numbers.
        spec: How its flat outputs are nested.

    Returns:
        The step graph. Its state is the very tensors, in order of first use.
    """
    graph = module.graph
    step = StepGraph(module, num_inputs, [], set(), spec)
    lifted: dict[int, fx.Node] = {}
    for node in [n for n in graph.nodes if n.op == "get_attr"]:
        tensor: Tensor = getattr(module, str(node.target))
        if id(tensor) not in lifted:
            lifted[id(tensor)] = step.add_state(tensor, f"state_{len(lifted)}")
            if id(tensor) in constant_ids:
                step.constants.add(tensor)
        node.replace_all_uses_with(lifted[id(tensor)])
        graph.erase_node(node)
    module.recompile()
    return step
