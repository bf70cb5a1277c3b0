"""Fence: now and then a step runs both ways from one state, and the results are compared.

It catches what the other fences cannot see: a program that was right once and is not any more.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from fitkit.record.compared import Pair, first_difference, pairs_of, spread_of
from fitkit.record.generators import Generators
from fitkit.record.passes.writes import written_state
from fitkit.record.program import Program

__all__ = ["Audited", "audit", "is_due"]

# A compiled result that is far off is held against so many runs with other roundings, and may be
# off by so many times as much. Measured: compiled ones up to 0.4 times, another shaken run up to 5.
_SHAKEN_RUNS = 8
_SHAKEN_TIMES = 10


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
    gradients = [parameter.grad for parameter in parameters]
    found = [each if each is None else _kept([each])[0] for each in program.gradients.found()]
    step = _Step(program, inputs, _kept(state), found, Generators(state), results)
    replayed = dict(program(inputs))
    after_replay = _kept(state)
    _put(state, step.before)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    step.generators.restore()
    written = {tensor.data_ptr() for tensor in state}
    others = [t for t in (*parameters, *buffers) if t.data_ptr() not in written]
    versions = [other._version for other in others]
    run_eagerly()
    for other, version in zip(others, versions, strict=True):
        if other._version != version:
            return Audited(f"only the eager step writes a tensor of shape {tuple(other.shape)}")
    pairs = pairs_of(program, replayed, after_replay, results(), step.before)
    difference = first_difference(pairs, exact=program.backend == "interpret")
    if difference is not None and program.backend != "interpret":
        difference = _beyond_rounding(step, pairs)
    if difference is not None or not keeps_replay:
        return Audited(difference)
    _put(state, after_replay)
    program.gradients.leave()
    return Audited(None, replayed)


@final
@dataclass(frozen=True, slots=True)
class _Step:
    """A step that can be run again.

    Attributes:
        program: What replays it.
        inputs: Its inputs.
        before: What `written_state` was before it.
        gradients: Those of the parameters before it; an eager step adds to them in place.
        generators: The generators as they were before it.
        results: Returns what the eager step has published, by name.
    """

    program: Program
    inputs: Sequence[Tensor]
    before: Sequence[Tensor]
    gradients: Sequence[Tensor | None]
    generators: Generators
    results: Callable[[], dict[str, Any]]

    def compared(self, other: Program) -> list[Pair]:
        """Run the step by another program, and compare; the state stays that of the eager step."""
        state, gradients = written_state(self.program.step), other.gradients.found()
        eager = _kept(state)
        _put(state, self.before)
        other.gradients.put_back(self.gradients)
        self.generators.restore()
        returned = dict(other(self.inputs))
        after = _kept(state)
        _put(state, eager)
        other.gradients.put_back(gradients)
        return pairs_of(other, returned, after, self.results(), self.before)


def _beyond_rounding(step: _Step, pairs: Sequence[Pair]) -> str | None:
    """Return what rounding does not explain, where a compiled program is off by more than usual.

    The very operations of the program, not compiled, must equal the eager step. If they do, it may
    be rounding that the step blows up: Adam divides a gradient by its size, also one that is zero
    but for rounding, as that of a bias before a batch normalization, or all of them once the loss
    is next to nothing. How far it carries is seen where each operation is off by a rounding.
    """
    program = step.program
    traced = Program(program.step, gradients=program.gradients)
    difference = first_difference(step.compared(traced), exact=True)
    if difference is not None:
        return difference
    shaken = program.shaken(step.inputs)
    spread = spread_of([step.compared(shaken) for _ in range(_SHAKEN_RUNS)])
    return first_difference(pairs, [_SHAKEN_TIMES * each for each in spread], exact=False)


def _kept(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return copies in the memory of the host, where there is room even if a device is full."""
    return [tensor.detach().to("cpu", copy=True) for tensor in tensors]  # sync: log2(replays) times


def _put(tensors: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for tensor, value in zip(tensors, values, strict=True):
            tensor.copy_(value)
