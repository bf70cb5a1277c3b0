"""Fence: now and then a step runs both ways from one state, and the results are compared.

It catches what the other fences cannot see: a program that was right once and is not any more.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from fitkit.record.generators import Generators
from fitkit.record.passes.writes import written_state
from fitkit.record.program import Program

__all__ = ["Audited", "audit", "is_due"]

# Compiled arithmetic is equal within rounding. What counts is the error relative to the change a
# step makes; counters of metrics (0-d) may flip a sample where two outputs are all but equal.
_TOLERANCE = 1e-2
_TOLERANCE_0D = 0.1
_ROUNDING = 2e-6


class Audited(NamedTuple):
    """What came of an audit.

    Attributes:
        difference: What differs between replay and eager step, if anything.
        results: What the replay returned, if it is the replay that counts.
    """

    difference: str | None
    results: dict[str, Any] | None = None


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
    *,
    keeps_replay: bool = False,
) -> Audited:
    """Replay a step, undo it, run it eagerly, and compare.

    Args:
        program: What replays the step.
        inputs: The inputs of this step.
        run_eagerly: Runs the same step with Python.
        results: Returns what the eager step has published, by name.
        parameters: Their gradients are put back after the replay.
        buffers: With the parameters, what the eager step may write and the program does not.
        keeps_replay: Whether the replay counts, if it is right; else the eager step does.

    Returns:
        What differs, and the results of the replay if it counts.

    Syncs: yes, it compares on the host. Happens log2(replays) times.
    """
    state = written_state(program.step)
    before = _kept(state)
    gradients = [parameter.grad for parameter in parameters]
    generators = Generators(state)
    replayed = dict(program(inputs))
    after_replay = _kept(state)
    _put(state, before)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    generators.restore()
    written = {tensor.data_ptr() for tensor in state}
    others = [t for t in (*parameters, *buffers) if t.data_ptr() not in written]
    versions = [other._version for other in others]
    run_eagerly()
    for other, version in zip(others, versions, strict=True):
        if other._version != version:
            return Audited(f"only the eager step writes a tensor of shape {tuple(other.shape)}")
    pairs = _state_pairs(program, state, after_replay, before) + _result_pairs(replayed, results())
    exact = program.backend == "interpret"
    differing = [name for name, *values in pairs if _differ(name, *values, exact=exact)]
    few = len(differing) <= len(pairs) // 2
    if differing and (exact or not few or not _is_rounding(program, inputs, before, generators)):
        return Audited(differing[0])
    if not keeps_replay:
        return Audited(None)
    _put(state, after_replay)
    program.gradients.leave()
    return Audited(None, replayed)


def _is_rounding(
    program: Program, inputs: Sequence[Tensor], before: Sequence[Tensor], generators: Generators
) -> bool:
    """Return whether the very operations of the program, not compiled, equal the eager step.

    Then a compiled result that is far off is rounding that something has blown up: the gradient of
    a bias before a batch normalization is zero but for rounding, and Adam divides by its size.
    """
    state, shown = written_state(program.step), program.gradients.shown()
    compared = [i for i, tensor in enumerate(state) if id(tensor) not in shown]
    eager = _kept(state)
    gradients = program.gradients.found()
    _put(state, before)
    generators.restore()
    Program(program.step, gradients=program.gradients)(inputs)
    same = all(torch.equal(state[i].detach().cpu(), eager[i]) for i in compared)  # sync: as above
    _put(state, eager)
    program.gradients.put_back(gradients)
    return same


def _kept(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return copies in the memory of the host, where there is room even if a device is full."""
    return [tensor.detach().to("cpu", copy=True) for tensor in tensors]  # sync: log2(replays) times


def _put(tensors: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for tensor, value in zip(tensors, values, strict=True):
            tensor.copy_(value)


_Pair = tuple[str, Tensor, Tensor, Tensor]  # name, replayed, eager, before


def _state_pairs(
    program: Program, state: Sequence[Tensor], replayed: Sequence[Tensor], before: Sequence[Tensor]
) -> list[_Pair]:
    shown = program.gradients.shown()  # an eager step makes new gradients, not into the buffers
    eager = [shown.get(id(tensor), tensor) for tensor in state]
    return [
        (f"state tensor of shape {tuple(now.shape)}", replay, now, old)
        for replay, now, old in zip(replayed, eager, before, strict=True)
        if now is not None
    ]


def _result_pairs(replayed: dict[str, Any], eager: dict[str, Any]) -> list[_Pair]:
    pairs: list[_Pair] = []
    for name in eager.keys() & replayed.keys():
        both = zip(tree_leaves(replayed[name]), tree_leaves(eager[name]), strict=True)
        pairs += [(name, replay, now, torch.zeros_like(now)) for replay, now in both]
    return pairs


def _differ(name: str, replay: Tensor, eager: Tensor, before: Tensor, *, exact: bool) -> bool:
    both = (replay, eager, before)
    replay, eager, before = (t.detach().cpu() for t in both)  # sync: log2(replays) times
    if exact and not eager.is_floating_point():
        return not torch.equal(replay, eager)
    a, b, old = (t.double().flatten() for t in (replay, eager, before))
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
