"""Backend interpret: replay the very operations of the eager step, one after the other. Bit-exact.

The graph becomes one straight-line Python function. Unlike those of ``GraphModule``, its operations
are bound as local variables below torch's Python wrapper. Results are dropped as soon as their last
reader ran, as eager code would.
"""

import operator
from collections.abc import Callable, Sequence
from typing import Any, cast

from torch import fx

from fitkit.record.backends import Runner
from fitkit.record.step_graph import StepGraph


def interpret(step: StepGraph) -> Runner:
    """Return a function that runs the graph. Costs no compilation.

    Args:
        step: The step; not changed.

    Returns:
        A function of the step's inputs.
    """
    bound: dict[str, Any] = {}
    inputs = ", ".join(node.name for node in step.placeholders[: step.num_inputs])
    state = step.placeholders[step.num_inputs :]
    lines = [_statement(node, bound) for node in step.module.graph.nodes if node.op != "output"]
    dead = _last_uses(step.module.graph)
    body = [line + dead.get(i, "") for i, line in enumerate(lines) if line]
    body.append(f"return {_argument(step.output.args[0], bound)}")
    body.insert(0, f"[{inputs}] = inputs")
    bound.update(zip((node.name for node in state), step.state, strict=True))
    return _define(body, bound)


def _define(body: list[str], bound: dict[str, Any]) -> Runner:
    """Compile the function inside another one, so that what it uses are fast local cells."""
    inner = "\n".join(f"        {line}" for line in body)
    source = f"def make({', '.join(bound)}):\n    def step(inputs):\n{inner}\n    return step\n"
    namespace: dict[str, Any] = {}
    exec(compile(source, "<fitkit recorded step>", "exec"), namespace)
    make: Callable[..., Runner] = namespace["make"]
    return make(**bound)


def _statement(node: fx.Node, bound: dict[str, Any]) -> str:
    if node.op == "placeholder":
        return ""
    if node.target is operator.getitem:
        source, index = node.args
        return f"{node.name} = {_argument(source, bound)}[{index!r}]"
    arguments = [_argument(a, bound) for a in node.args]
    arguments += [f"{name}={_argument(a, bound)}" for name, a in node.kwargs.items()]
    # An OpOverload's __call__ is a Python function around _op: one more call per operation.
    target: Any = node.target
    call = f"{_bind(getattr(target, '_op', target), bound)}({', '.join(arguments)})"
    return f"{node.name} = {call}" if node.users else call


def _argument(value: Any, bound: dict[str, Any]) -> str:
    if isinstance(value, fx.Node):
        return value.name
    if isinstance(value, (list, tuple)):
        items = cast("Sequence[Any]", value)
        return "[" + ", ".join(_argument(item, bound) for item in items) + "]"
    if value is None or type(value) in (bool, int):
        return repr(value)
    return _bind(value, bound)


def _bind(value: Any, bound: dict[str, Any]) -> str:
    name = f"_b{len(bound)}"
    bound[name] = value
    return name


def _last_uses(graph: fx.Graph) -> dict[int, str]:
    """Return, per statement, the ``del`` of the results that are not read after it."""
    last: dict[fx.Node, int] = {}
    for i, node in enumerate(graph.nodes):
        last.update(dict.fromkeys(node.all_input_nodes, i))
    dead: dict[int, list[str]] = {}
    for node, i in last.items():
        if node.op != "placeholder":
            dead.setdefault(i, []).append(node.name)
    return {i: f"; del {', '.join(names)}" for i, names in dead.items()}
