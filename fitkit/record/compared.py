"""What a program has left and returned, compared with what the eager step has."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from fitkit.record.passes.writes import written_state
from fitkit.record.program import Program

__all__ = ["Pair", "first_difference", "pairs_of", "spread_of"]

# Compiled arithmetic is equal within rounding. What counts is the error relative to the change a
# step makes; counters of metrics (0-d) may flip a sample where two outputs are all but equal.
_TOLERANCE = 1e-2
_TOLERANCE_0D = 0.1
_ROUNDING = 2e-6

Pair = tuple[str, Tensor, Tensor, Tensor]
"""A name; what the program has, what the eager step has, and what was there before."""


def pairs_of(
    program: Program,
    returned: dict[str, Any],
    after: Sequence[Tensor],
    results: dict[str, Any],
    before: Sequence[Tensor],
) -> list[Pair]:
    """Return a pair for each tensor of the state and each result.

    Args:
        program: What has run.
        returned: What it returned, by name.
        after: What it left of `written_state`, which is now what the eager step has left.
        results: What the eager step has published, by name.
        before: What `written_state` was before the step.
    """
    shown = program.gradients.shown()  # an eager step makes new gradients, not into the buffers
    eager = [shown.get(id(tensor), tensor) for tensor in written_state(program.step)]
    return [
        (f"state tensor of shape {tuple(now.shape)}", replay, now, old)
        for replay, now, old in zip(after, eager, before, strict=True)
        if now is not None
    ] + _result_pairs(returned, results)


def first_difference(
    pairs: Sequence[Pair], allowed: Sequence[float] | None = None, *, exact: bool
) -> str | None:
    """Return what differs first, None if nothing does.

    Args:
        pairs: What is compared.
        allowed: An error that each pair may have besides the usual ones.
        exact: Whether the operations are those of the eager step.

    Syncs: yes, it compares on the host.
    """
    for pair, more in zip(pairs, allowed or [0.0] * len(pairs), strict=True):
        name, replay, eager, before = pair
        if exact and not eager.is_floating_point():
            if not torch.equal(replay.cpu(), eager.cpu()):  # sync: log2(replays) times
                return name
            continue
        counts = eager.dim() == 0 and name.startswith("state")
        usual = _usual(_flat(eager), _flat(before), exact=exact, counts=counts)
        error = _error(pair)
        if error > max(usual, more):
            return f"{name}, by {error:.1e} where rounding moves it by {max(usual, more):.1e}"
    return None


def spread_of(runs: Sequence[Sequence[Pair]]) -> list[float]:
    """Return how far several runs are from the eager step, the largest error of each pair.

    What is no finite number one way only is left out.
    """
    errors = [[_error(pair) for pair in of_one] for of_one in zip(*runs, strict=True)]
    return [max([e for e in of_one if e < math.inf], default=0.0) for of_one in errors]


def _error(pair: Pair) -> float:
    """Return the largest difference; infinite if something is no finite number one way only."""
    a, b = _flat(pair[1]), _flat(pair[2])
    odd = ~(a.isfinite() & b.isfinite())
    if not torch.equal(a[odd].nan_to_num(0.5), b[odd].nan_to_num(0.5)):
        return math.inf
    return _largest((a - b)[~odd])


def _usual(eager: Tensor, before: Tensor, *, exact: bool, counts: bool) -> float:
    """Return how far rounding usually moves a result.

    An update rounds what it adds, however little is left of it: so what was there counts as well.
    """
    now, old = (t.nan_to_num(0.0, 0.0, 0.0) for t in (eager, before))
    rounding = _ROUNDING * max(_largest(now), _largest(old))
    if exact:  # an interpreted program differs only where `alpha=tensor` was rewritten
        return rounding
    return rounding + (_TOLERANCE_0D if counts else _TOLERANCE) * _largest(now - old)


def _flat(value: Tensor) -> Tensor:
    return value.detach().cpu().double().flatten()  # sync: log2(replays) times


def _largest(values: Tensor) -> float:
    return values.abs().amax().item() if len(values) else 0.0  # sync: none, of the host


def _result_pairs(replayed: dict[str, Any], eager: dict[str, Any]) -> list[Pair]:
    pairs: list[Pair] = []
    for name in eager.keys() & replayed.keys():
        both = zip(tree_leaves(replayed[name]), tree_leaves(eager[name]), strict=True)
        pairs += [(name, replay, now, torch.zeros_like(now)) for replay, now in both]
    return pairs
