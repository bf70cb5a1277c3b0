"""What fitkit has set out to reach, worked out from the rows: held, not held, or a tie."""

from collections.abc import Iterable, Iterator
from math import comb
from typing import NamedTuple

import numpy as np

from benchmarks.suite.tables import Result, Row, Table, by_case, is_timed

PEERS = ("lightning", "lightning-barebones", "skorch", "poutyne", "accelerate", "ignite")
EAGER = {
    "fitkit": ("hand-keras", "keras-fit"),
    "fitkit-torch": PEERS,
    "fitkit-torch-loader": PEERS,
}
"""Whom fitkit eager is held to: those who have the same loss function and optimizer."""
COMPUTE_BOUND = ("resnet50", "gpt2", "gpt2-torch")
CHANCE = 0.02  # some fifty comparisons make up a result
MIN_ROUNDS = 5
"""With fewer, nothing can be said about a difference."""
HELD, TIE, NOT_HELD = "held", "tie", "NOT HELD"


class Bar(NamedTuple):
    """One requirement on one case.

    Attributes:
        what: In words.
        case: Title of the case.
        line: Where it stands in the table: the same for all cases.
        ratios: Time of the other over that of fitkit, per round.
        least: What its median must be.
    """

    what: str
    case: str
    line: str
    ratios: list[float]
    least: float

    @property
    def median(self) -> float:
        """Of the ratios."""
        return float(np.median(self.ratios))

    @property
    def verdict(self) -> str:
        """Held or not held if the whole interval of the median is on one side, else a tie."""
        low, high = interval(self.ratios)
        if low >= self.least:
            return HELD
        return NOT_HELD if high < self.least else TIE

    def said(self) -> str:
        """The ratio with the interval of its median."""
        low, high = interval(self.ratios)
        return f"{self.median:.3g} ({low:.3g} to {high:.3g})"


def interval(values: list[float]) -> tuple[float, float]:
    """Where the median of many more rounds would be, with a chance of error of at most 2 %.

    With 5 or 6 rounds it is 6 and 3 %, though even the extremes are taken.

    The k-th smallest and the k-th largest value, by the sign test: that a median lies below the
    k-th smallest of n values has the chance that fewer than k of n throws of a coin are heads.
    """
    ordered, n, k = sorted(values), len(values), 1
    while 2 * sum(comb(n, heads) for heads in range(k + 1)) / 2**n <= CHANCE:
        k += 1
    return ordered[k - 1], ordered[-k]


def bars(result: Result) -> list[Bar]:
    """All requirements for which there are rows that train the same."""
    return [bar for rows in by_case(result).values() for bar in of_case(fair_rows(rows))]


def fair_rows(rows: list[Row]) -> dict[str, Row]:
    """Those that train the same, with enough rounds to say something about it."""
    timed = [row for row in rows if is_timed(row) and row["rounds"] >= MIN_ROUNDS]
    return {row["contestant"]: row for row in timed if row["fair"]["ok"] is not False}


def of_case(rows: dict[str, Row]) -> Iterator[Bar]:
    """The requirements on a case."""
    yield from eager(rows)
    recorded = first(row for row in rows.values() if row["family"] == "record")
    others = [r for r in rows.values() if r["family"] not in ("record", "fitkit", "floor")]
    rival = first(others)
    if recorded is None or rival is None:
        return
    title, on_cuda = recorded["title"], recorded["device"] != "cpu"
    least = 1.0
    if on_cuda and recorded["case"] == "mlp-1024":
        least = 1.3
    elif on_cuda and recorded["case"] in COMPUTE_BOUND:
        least = 0.98
    what = f"{recorded['label']} against the fastest other, {rival['label']}"
    line = "the fastest recorded row against the fastest other" + f", {least:g}" * (least != 1)
    yield Bar(what, title, line, ratios(rival, recorded), least)
    if on_cuda and recorded["case"] == "mlp-32":
        for name, factor in {"keras-fit": 20.0, "hand-keras": 10.0}.items():
            if name in rows:
                what = f"{recorded['label']} against {rows[name]['label']}"
                yield Bar(what, title, f"{what}, {factor:g}", ratios(rows[name], recorded), factor)


def eager(rows: dict[str, Row]) -> Iterator[Bar]:
    """The eager loop against each library that has the same parts."""
    if any(row["device"] != "cpu" for row in rows.values()):
        return
    for name, others in EAGER.items():
        for other in [rows[each] for each in others if each in rows and name in rows]:
            what = f"{rows[name]['label']} against {other['label']}"
            yield Bar(what, other["title"], what, ratios(other, rows[name]), 1.0)


def first(rows: Iterable[Row]) -> Row | None:
    """The fastest: by its part of the baseline's time in the same rounds, where all have one.

    Not all are in memory at the same time in every case: the machine may have been slower for some.
    """
    rows = list(rows)
    together = len({row.get("baseline") for row in rows if "ratio" in row}) == 1
    key = "ratio" if together and all("ratio" in row for row in rows) else "us_per_step"
    return min(rows, key=lambda row: row[key]["median"], default=None)


def ratios(other: Row, own: Row) -> list[float]:
    """Times of the other over one's own, round by round.

    Both as a part of the baseline's in the same round, where there is one: not all are in memory
    at the same time in every case.
    """
    key = "ratio" if other.get("baseline") and other.get("baseline") == own.get("baseline") else ""
    pairs = zip(other[key or "us_per_step"]["all"], own[key or "us_per_step"]["all"], strict=False)
    return [theirs / ours for theirs, ours in pairs]


def table(result: Result) -> Table:
    """A line per requirement, a column per case; what all lines need are no words of theirs."""
    found = bars(result)
    cells = {(bar.line, bar.case): f"{bar.said()} {bar.verdict}" for bar in found}
    cases = list(dict.fromkeys(bar.case for bar in found))
    lines = list(dict.fromkeys(bar.line for bar in sorted(found, key=in_order)))
    rows = [[line, *(cells.get((line, case), "") for case in cases)] for line in lines]
    return [["times as long as fitkit; at least 1, or as said", *cases], *rows] if rows else []


def in_order(bar: Bar) -> bool:
    """Recorded rows first."""
    return bar.line in bar.what


def sentences(result: Result) -> Iterator[str]:
    """How many hold, and each one that does not."""
    found = bars(result)
    counts = {verdict: sum(bar.verdict == verdict for bar in found) for verdict in (HELD, TIE)}
    if found:
        yield (
            f"{counts[HELD]} of {len(found)} requirements held, {counts[TIE]} tied: what is asked "
            "for lies within the spread of what was measured."
        )
    for bar in [bar for bar in found if bar.verdict == NOT_HELD]:
        yield f"Not held: {bar.case}, {bar.what}: {bar.said()}, at least {bar.least:.3g}."
    below: dict[str, list[str]] = {}
    for bar in [bar for bar in found if bar.verdict == TIE and bar.median < bar.least]:
        below.setdefault(bar.case, []).append(f"{bar.what} {bar.median:.3g}")
    for case, ties in below.items():
        yield f"Tied, the median below: {case}, {'; '.join(ties)}."
