"""Trace one step: run it on fake tensors, keep the operations, leave the world as it was.

The step runs once with every tensor replaced by its description, so neither parameters nor random
generators move (a few writes that torch carries out all the same are undone). The operations that
would have run become a graph; tensors the step reached from outside (parameters, optimizer slots,
metric sums) become its state.
"""

import random
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from fitkit.record.constants import Constants
from fitkit.record.grads import Gradients
from fitkit.record.guard import OpGuard, ReadGuard
from fitkit.record.journal import Journal
from fitkit.record.passes.lift import lift_attributes
from fitkit.record.passes.writes import written_placeholders
from fitkit.record.refused import Refused, WritesNumber, culprit, raised_frames
from fitkit.record.step_graph import StepGraph

Region = Callable[[Sequence[Tensor]], Any]


def trace(
    region: Region,
    inputs: Sequence[Tensor],
    *,
    gradients: Gradients | None = None,
    constants: Constants | None = None,
    branch: bool | Callable[[], bool | None] | None = None,
) -> StepGraph:
    """Trace a step in the grad mode of the caller. Everything it builds lazily must exist already.

    Args:
        region: The step: takes the inputs, returns a nest (dicts, lists, tuples) of tensors.
            Called once, with fake tensors.
        inputs: The tensors that differ from step to step; only their shapes, dtypes and devices
            are used. Every other tensor the step reaches becomes state.
        gradients: The parameters whose ``.grad`` the step touches.
        constants: The cache of number tensors to use; a new one by default.
        branch: The answer to every truth test of a tensor in the step, or a function that gives
            the answer to the one at hand; None refuses it.

    Returns:
        The step as a graph, with the live tensors it runs on.

    Raises:
        Refused: If a replay could differ from the step as it is written.
    """
    begin = time.perf_counter()
    constants = constants or Constants()
    gradients = gradients or Gradients(())
    guard = ReadGuard(constants, branch=branch)
    module, spec = _run(region, inputs, gradients, guard)
    step = lift_attributes(module, len(inputs), constants.ids(), spec)
    _refuse_writes(step)
    step.num_branches = guard.num_branches
    step.trace_s = time.perf_counter() - begin
    return step


def _run(
    region: Region, inputs: Sequence[Tensor], gradients: Gradients, guard: ReadGuard
) -> tuple[fx.GraphModule, pytree.TreeSpec]:
    specs: list[pytree.TreeSpec] = []

    def flat_step(*flat: Tensor) -> tuple[Any, ...]:
        with OpGuard(journal), guard:
            outputs = region(flat)
            gradients.flush()
        if any(tensor.is_leaf and tensor.grad is not None for tensor in flat):
            raise Refused("the step leaves gradients on its inputs")
        leaves, spec = pytree.tree_flatten(outputs)
        specs.append(spec)
        _refuse_host_values(leaves)
        return tuple(leaves)

    journal = Journal()
    gradients.set_aside()
    try:
        with _generators_untouched():
            tracer = make_fx(flat_step, tracing_mode="fake", _allow_non_fake_inputs=True)
            module = tracer(*inputs)
    except Refused:
        raise
    except Exception as error:
        # The step ran eagerly before, so whatever fails here fails because it is traced.
        lines = str(error).strip().splitlines() or [""]
        reason = f"the step cannot be traced: {type(error).__name__}: {lines[0]}"
        raise Refused(reason, culprit(raised_frames(error))) from error
    finally:
        gradients.restore()
        journal.undo()
    return module, specs[0]


def _refuse_host_values(leaves: Sequence[Any]) -> None:
    for leaf in leaves:
        if not isinstance(leaf, Tensor):
            raise Refused(f"the step publishes a host value ({leaf!r}), it would never change")


def _refuse_writes(step: StepGraph) -> None:
    """Refuse steps that write into their batch (it may be read again) or into a number."""
    placeholders = step.placeholders
    for node in written_placeholders(step.module.graph):
        if placeholders.index(node) < step.num_inputs:
            raise Refused("the step writes into its batch in place")
        if step.is_constant(node):
            raise WritesNumber("the step writes into a tensor made from a Python number")


@contextmanager
def _generators_untouched() -> Generator[None]:
    """Refuse a step that draws random numbers on the host: they would be frozen in the graph."""
    before = _generator_states()
    yield
    for name, old, new in zip(
        ("torch", "random", "numpy"), before, _generator_states(), strict=True
    ):
        if old != new:
            raise Refused(f"the step draws from the host generator of {name}")


def _generator_states() -> tuple[object, object, object]:
    own: Any = torch.get_rng_state()
    state: Any = np.random.get_state()
    algorithm, words, *rest = state
    own, words = own.tolist(), words.tolist()  # sync: none, host memory; twice per trace
    return own, random.getstate(), (algorithm, words, rest)
