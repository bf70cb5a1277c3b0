"""Whether a row is fair: it has trained the same, and the two ways of timing fitkit agree."""

import statistics
from typing import Any

from benchmarks.suite.cases import Case
from benchmarks.suite.contestants import CONTESTANTS

Row = dict[str, Any]

TOLERANCE = 1e-3
BETWEEN_PARTS = 0.03
AGREEMENT = 0.03
HAND = {"Keras": "hand-keras", "torch": "hand-torch"}


def fairness(name: str, measured: dict[str, Row]) -> Row:
    """Whether the contestant came to the loss of the hand loop with the same parts.

    Both have trained the same number of steps from the same weights on the same batches. The hand
    loop with torch's parts is held to that with Keras's, less strictly: the two kinds of Adam add
    epsilon before and after correcting the bias.
    """
    losses = measured[name].get("losses", {})
    if not losses:
        return {"ok": None, "why": "it has no loss: it only runs the kernels"}
    same_parts = HAND[CONTESTANTS[name].parts]
    candidates = [each for each in (same_parts, HAND["Keras"]) if each != name and
                  measured.get(each, {}).get("losses")]  # fmt: skip
    if not candidates:
        return {"ok": None, "why": "it is the reference" if name in HAND.values() else
                "there is no hand loop to compare with"}  # fmt: skip
    reference = candidates[0]
    theirs = measured[reference]["losses"]
    common = sorted(set(losses) & set(theirs))
    if not common:
        return {"ok": None, "why": f"{reference} was not trained for as many steps"}
    steps = common[0]
    tolerance = TOLERANCE if reference == same_parts else BETWEEN_PARTS
    difference = relative(losses[steps], theirs[steps])
    state = relative(*(measured[n].get("states", {}).get(steps, 0.0) for n in (name, reference)))
    row = {
        "ok": bool(difference <= tolerance and state <= tolerance),  # nan is not within
        "loss": losses[steps],
        "reference": reference,
        "reference_loss": theirs[steps],
        "after_steps": steps,
        "difference": difference,
        "tolerance": tolerance,
        "state_difference": state,
    }
    if not row["ok"]:
        what, much = "loss", difference
        if difference <= tolerance:
            what, much = "averages of batch normalization", state
        row["why"] = f"{what} after {steps} steps {much:.1%} off those of {reference}"
    return row


def relative(value: float, reference: float) -> float:
    """How far a value is from the reference, as a part of it."""
    return abs(value - reference) / abs(reference) if value != reference else 0.0


def agreement(case: Case, found: Row) -> Row | None:
    """Whether fitkit's `Benchmark` says what the clock of all contestants says."""
    told = found.get("told", {}).get("benchmark")
    if told is None:
        return None
    own_us, outside_us = 1e3 * told["step_ms"], statistics.median(found["wall_us"])
    difference = outside_us / own_us - 1
    row = {"benchmark_us": own_us, "outside_us": outside_us, "difference": difference,
           "tolerance": AGREEMENT}  # fmt: skip
    if case.validates:
        return {**row, "ok": None, "why": "Benchmark leaves the validation out, the clock does not"}
    return {**row, "ok": abs(difference) <= AGREEMENT}
