"""What comes out of every pair of callbacks of tune/: tests/contract/test_combine.py runs them all.

It demands the very outcome that is written here, and docs/combine.md shows it.
"""

from itertools import combinations_with_replacement

__all__ = ["EQUAL", "NAMES", "OUTCOMES", "PAIRS", "REFUSED", "ROUNDED", "combine_page"]

EQUAL, ROUNDED, REFUSED = "=", "~", "no"
NAMES = (
    *("Accumulate", "MixedPrecision", "NaNGuard", "ClipGradNorm", "ClipGradValue", "EMA"),
    *("EarlyStopping", "Freeze", "KerasCallbacks", "LRSchedule", "Limits", "Seed"),
)
PAIRS = list(combinations_with_replacement(NAMES, 2))
_TWICE = {
    "Accumulate": "two windows of different sizes are no window; give one the number of batches",
    "ClipGradNorm": "both would log `grad_norm`; the smaller limit is enough",
    "EMA": "the model can show one average only",
    "Freeze": "the same weight in both: one would thaw what the other one freezes",
    "LRSchedule": "the same number in both: each would undo what the other one sets",
    "Limits": "one takes all limits",
    "NaNGuard": "one looks at all there is",
    "Seed": "one seeds everything",
}
OUTCOMES = dict.fromkeys(PAIRS, EQUAL)
OUTCOMES |= {pair: ROUNDED for pair in PAIRS if pair[0] == "Accumulate"}
OUTCOMES |= {(name, name): REFUSED for name in _TWICE}

_INTRO = f"""Each pair of callbacks that change training, in one loop, compared with a loop written
by hand that does both: three epochs with validation, dropout and a smaller last batch, the weights
and every validation loss. `{EQUAL}` is equal bit by bit; `{ROUNDED}` is equal within rounding,
because a window of accumulation adds up in another order; `{REFUSED}` is refused, for the reason
given below.

List callbacks in this order, after the stack. Another order is refused where it would be wrong
(clipping before the gradients are unscaled), and free everywhere else.
"""


def combine_page(note: str) -> str:
    """The page: a triangle of outcomes, and why something is refused."""
    head = ["", *[str(number) for number in range(1, len(NAMES) + 1)]]
    lines = ["# Combine callbacks", note, _INTRO, _row(head), _row(["---"] * len(head))]
    for number, name in enumerate(NAMES, start=1):
        cells = [OUTCOMES.get((name, other), "") for other in NAMES]
        lines.append(_row([f"{number} `{name}`", *cells]))
    lines += ["", "## Two of one kind", ""]
    lines += [f"- `{name}` twice: {why}." for name, why in _TWICE.items()]
    lines += [
        "",
        "Everything else may be there twice: several `EarlyStopping` watch several values, several",
        "`Freeze` hold different weights, several `LRSchedule` set different numbers.",
        "",
        "## Also refused",
        "",
        "- A rate that a Keras optimizer, a Keras callback or another `LRSchedule` sets already.",
        "- `Accumulate`, clipping, `EMA`, loss scaling beside a Keras optimizer that does it too.",
        "- `KerasCallbacks` with a model that is none of Keras.",
        "",
        "With `EMA`, validations judge the averages: these are what `EarlyStopping` brings back.",
        "",
    ]
    return "\n".join(lines)


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
