"""Whether a row is fair: it has trained the same, and the two ways of timing fitkit agree."""

import math
import statistics
from typing import Any

from benchmarks.suite.contestants import CONTESTANTS
from benchmarks.suite.words import NOBODY

Row = dict[str, Any]

START = 1e-5
TOLERANCE = 5e-3
SURE_STEPS = 256
LATE_TOLERANCE = 0.05
"""After so many steps rounding has grown: one loop comes out otherwise from weights that differ in
their last bit."""
AVERAGES = 1e-3
BETWEEN_PARTS = 0.03
AGREEMENT = 0.03
HAND = {"Keras": "hand-keras", "torch": "hand-torch"}


def fairness(name: str, measured: dict[str, Row], last: int | None = None) -> Row:
    """Whether the contestant came to the loss of the hand loop with the same parts.

    Compared are losses after at most `last` steps.

    Both have trained the same number of steps from the same weights on the same batches. The hand
    loop with torch's parts is held to that with Keras's, less strictly: the two kinds of Adam add
    epsilon before and after correcting the bias.
    """
    losses = measured[name].get("losses", {})
    if not losses:
        return {"ok": None, "why": "it has no loss: it only runs the kernels"}
    same_parts = HAND[CONTESTANTS[name].parts]
    if name == HAND["Keras"]:
        return {"ok": None, "why": "it is the reference"}
    candidates = [each for each in (same_parts, HAND["Keras"]) if each != name and
                  measured.get(each, {}).get("losses")]  # fmt: skip
    if not candidates:
        reason = "it is the reference" if name == same_parts else NOBODY
        return {"ok": None, "why": reason}
    return compared(name, candidates[0], measured, same_parts, last or math.inf)


def compared(
    name: str, reference: str, measured: dict[str, Row], same_parts: str, last: float
) -> Row:
    """The largest difference after the same number of steps, as a part of what was learned.

    That is by how much the loss of the reference has fallen at most: where it falls by little, a
    small difference is a large one.
    """
    losses, theirs = measured[name]["losses"], measured[reference]["losses"]
    common = sorted(steps for steps in set(losses) & set(theirs) if steps <= last)
    if reference != same_parts:
        common = common[:2]  # after the first epoch the two kinds of Adam drift apart
    learned = max(abs(theirs[steps] - theirs[common[0]]) for steps in common)
    apart = {steps: part(losses[steps] - theirs[steps], learned) for steps in common}
    close = {steps: tolerance(steps, common, reference == same_parts) for steps in common}
    near = AVERAGES if reference == same_parts else BETWEEN_PARTS
    worst = max(reversed(common), key=lambda steps: apart[steps] / close[steps])
    if relative(losses[common[0]], theirs[common[0]]) > START and common[0] == 0:
        worst, close[0] = 0, START  # other weights to begin with
        apart[0] = relative(losses[0], theirs[0])
    states = [measured[each].get("states", {}) for each in (name, reference)]
    state = max((relative(states[0][s], states[1][s]) for s in common if s in states[0]), default=0)
    row = {
        "ok": bool(apart[worst] <= close[worst] and state <= near),
        "loss": losses[worst],
        "reference": reference,
        "reference_loss": theirs[worst],
        "start_loss": theirs[common[0]],
        "after_steps": worst,
        "difference": apart[worst],
        "tolerance": close[worst],
        "state_difference": state,
    }
    if not row["ok"]:
        what, much = f"loss after {worst} steps", apart[worst]
        if much <= close[worst]:
            what, much = "averages of batch normalization", state
        row["why"] = f"{what} {much:.1%} off those of {reference}"
    return row


def tolerance(steps: int, common: list[int], same_parts: bool) -> float:
    """How far off the loss may be; the first epoch counts as early, whatever its length."""
    if not same_parts:
        return BETWEEN_PARTS
    return TOLERANCE if steps <= max(SURE_STEPS, *common[:2]) else LATE_TOLERANCE


def part(difference: float, whole: float) -> float:
    """The size of a difference as a part of the whole; no number is infinitely far off."""
    if difference == 0:
        return 0.0
    return abs(difference) / whole if whole > 0 and math.isfinite(difference) else math.inf


def relative(value: float, reference: float) -> float:
    """How far a value is from the reference, as a part of it."""
    return abs(value - reference) / abs(reference) if value != reference else 0.0


def agreement(found: Row) -> Row | None:
    """Whether fitkit's `Benchmark` says what the clock of all contestants says.

    Both about the training passes of the same rounds, one by one: what an epoch does at its end is
    no step, and no matter of `Benchmark`.
    """
    if "pass_us" not in found or not any(found["pass_us"]):
        return None
    own_us, outside_us = found.get("told", {}).get("benchmark_us"), found["pass_us"]
    if own_us is None:
        return {"ok": None, "why": f"cut short after {len(outside_us)} rounds"}
    ratio = statistics.median(out / own for out, own in zip(outside_us, own_us, strict=True))
    medians = {"benchmark_us": own_us, "outside_us": outside_us}
    return {"ok": abs(ratio - 1) <= AGREEMENT, "difference": ratio - 1, "tolerance": AGREEMENT,
            **{name: statistics.median(us) for name, us in medians.items()}}  # fmt: skip
