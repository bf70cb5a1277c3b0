"""Pass: compute once what depends on Python numbers alone, for example a loss's divisor."""

from torch import Tensor, fx

from fitkit.record.passes.purity import compute, is_pure
from fitkit.record.passes.writes import eliminate_unread, owners, written
from fitkit.record.step_graph import StepGraph

# A folded tensor lives as long as the program; an op that makes a larger one stays in the step.
_MAX_NUMEL = 4096


def fold_constants(step: StepGraph) -> None:
    """Replace values computed from constants by new constants. Exact: the same ops compute them.

    Left alone: values that are written in place later or published (someone else may write them),
    random draws, and large tensors.
    """
    graph = step.module.graph
    folded = _evaluate(step)
    for node, value in folded.items():
        users = [u for u in node.users if u not in folded and u.op != "output"]
        if node.op == "placeholder" or not users:
            continue
        constant = step.add_state(value, f"folded_{node.name}")
        step.constants.add(value)
        constant.meta.update(node.meta)
        for user in users:
            user.replace_input_with(node, constant)
    eliminate_unread(graph)
    step.module.recompile()


def _evaluate(step: StepGraph) -> dict[fx.Node, Tensor]:
    """Return the value of every node that is the same in each run."""
    graph = step.module.graph
    changed, owner = written(graph), owners(graph)
    values: dict[fx.Node, Tensor] = {
        node: tensor
        for node, tensor in zip(step.placeholders[step.num_inputs :], step.state, strict=True)
        if tensor in step.constants
    }
    for node in graph.nodes:
        if owner[node] not in changed and is_pure(node) and _all_known(node, values):
            value = compute(node, values)
            if isinstance(value, Tensor) and value.numel() <= _MAX_NUMEL:
                values[node] = value
    return values


def _all_known(node: fx.Node, values: dict[fx.Node, Tensor]) -> bool:
    return all(arg in values for arg in node.all_input_nodes)
