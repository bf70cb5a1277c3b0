"""Fence: now and then a step runs both ways from one state, and the results are compared.

It catches what the other fences cannot see: a program that was right once and is not any more.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from fitkit.record.generators import Generators
from fitkit.record.passes.writes import written_state
from fitkit.record.program import Program

__all__ = ["audit", "is_due"]

# Compiled arithmetic is equal within rounding. What counts is the error relative to the change a
# step makes; counters of metrics (0-d) may flip a sample where two outputs are all but equal.
_TOLERANCE = 1e-2
_TOLERANCE_0D = 0.1
_ROUNDING = 2e-6


def is_due(program: Program) -> bool:
    """Return whether the next replay is one of the first, second, fourth, eighth, ... ."""
    count = program.num_replays_of_backend + 1
    return count & (count - 1) == 0 and program.repeatable


def audit(
    program: Program,
    inputs: Sequence[Tensor],
    run_eagerly: Callable[[], None],
    results: Callable[[], dict[str, Any]],
    parameters: Sequence[Tensor],
    buffers: Sequence[Tensor] = (),
) -> str | None:
    """Replay a step, undo it, run it eagerly, and compare.

    Args:
        program: What replays the step.
        inputs: The inputs of this step.
        run_eagerly: Runs the same step with Python.
        results: Returns what the eager step has published, by name.
        parameters: Their gradients are put back after the replay.
        buffers: With the parameters, what the eager step may write and the program does not.

    Returns:
        What differs most, or None. The state is that of the eager step either way.

    Syncs: yes, it compares on the host. Happens log2(replays) times.
    """
    state = written_state(program.step)
    before = [tensor.clone() for tensor in state]
    gradients = [parameter.grad for parameter in parameters]
    generators = Generators(state)
    replayed = dict(program(inputs))
    after_replay = [tensor.clone() for tensor in state]
    with torch.no_grad():
        for tensor, value in zip(state, before, strict=True):
            tensor.copy_(value)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    generators.restore()
    written = {tensor.data_ptr() for tensor in state}
    others = [t for t in (*parameters, *buffers) if t.data_ptr() not in written]
    versions = [other._version for other in others]
    run_eagerly()
    for other, version in zip(others, versions, strict=True):
        if other._version != version:
            return f"only the eager step writes a tensor of shape {tuple(other.shape)}"
    exact = program.backend == "interpret"
    eager = results()
    shown = program.gradients.shown()  # an eager step makes new gradients, not into the buffers
    eager_state = [shown.get(id(tensor), tensor) for tensor in state]
    pairs = [
        (f"state tensor of shape {tuple(now.shape)}", replay, now, old)
        for replay, now, old in zip(after_replay, eager_state, before, strict=True)
        if now is not None
    ]
    for name in eager.keys() & replayed.keys():
        both = zip(tree_leaves(replayed[name]), tree_leaves(eager[name]), strict=True)
        pairs += [(name, replay, now, torch.zeros_like(now)) for replay, now in both]
    return next((name for name, *values in pairs if _differ(name, *values, exact=exact)), None)


def _differ(name: str, replay: Tensor, eager: Tensor, before: Tensor, *, exact: bool) -> bool:
    if exact and not eager.is_floating_point():
        return not torch.equal(replay, eager)
    a, b, old = (t.detach().double().flatten() for t in (replay, eager, before))
    odd = ~(a.isfinite() & b.isfinite())
    if not torch.equal(a[odd].nan_to_num(0.5), b[odd].nan_to_num(0.5)):
        return True  # what is infinite or no number is so both ways
    a, b, old = (t[~odd] for t in (a, b, old.nan_to_num(0.0, 0.0, 0.0)))
    if not len(a):
        return False
    error = (a - b).abs().amax()
    rounding = _ROUNDING * b.abs().amax()
    counter = eager.dim() == 0 and name.startswith("state")
    tolerance = _TOLERANCE_0D if counter else _TOLERANCE
    # Interpreted programs differ only where `alpha=tensor` was rewritten, by a rounding.
    allowed = rounding if exact else rounding + tolerance * (b - old).abs().amax()
    return bool(error > allowed)  # sync: log2(replays) times
