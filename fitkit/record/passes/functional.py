"""Pass: rewrite a step without writes in place, except one copy per changed tensor at its end."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from fitkit.record.passes.dead import drop_unread
from fitkit.record.passes.detach import drop_detach
from fitkit.record.passes.fused import spelled_out
from fitkit.record.step_graph import StepGraph


def functionalize(
    step: StepGraph,
    inputs: Sequence[Tensor],
    *,
    decompositions: Mapping[Any, Callable[..., Any]] | None = None,
) -> None:
    """Make every value of the graph a value of its own, as compilers want it.

    Afterwards the order of operations no longer matters, only their arguments do, and nodes carry
    their fake value in ``meta["val"]``. Nothing is computed.

    Args:
        step: The step.
        inputs: Example inputs; only shapes, dtypes and devices are used.
        decompositions: Operations to replace by simpler ones on the way.
    """
    pure = torch.func.functionalize(spelled_out(step.module), remove="mutations")
    tracer = make_fx(
        pure,
        decomposition_table=dict(decompositions or {}),
        tracing_mode="fake",
        _allow_non_fake_inputs=True,
    )
    with torch.no_grad():
        step.module = tracer(*step.tensors(inputs))
    drop_detach(step)
    drop_unread(step)
