"""What fitkit has set out to reach, worked out from the rows: held or not held."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from benchmarks.suite.tables import Result, Row, Table, by_case, is_timed

PEERS = ("lightning", "skorch", "poutyne", "accelerate", "ignite")
EAGER = ("fitkit", "fitkit-torch")
COMPUTE_BOUND = ("resnet50", "gpt2", "gpt2-torch")


class Bar(NamedTuple):
    """One requirement on one case.

    Attributes:
        what: In words.
        case: Title of the case.
        ratios: Time of the other over that of fitkit, per round.
        least: What its median must be.
    """

    what: str
    case: str
    ratios: list[float]
    least: float

    @property
    def median(self) -> float:
        """Of the ratios."""
        return float(np.median(self.ratios))

    @property
    def holds(self) -> bool:
        """Whether the median is large enough."""
        return self.median >= self.least

    def said(self) -> str:
        """The ratio with its spread."""
        p5, median, p95 = np.percentile(self.ratios, [5, 50, 95])
        return f"{median:.3g} ({p5:.3g} to {p95:.3g})"


def bars(result: Result) -> list[Bar]:
    """All requirements for which there are rows that train the same."""
    return [bar for rows in by_case(result).values() for bar in of_case(fair_rows(rows))]


def fair_rows(rows: list[Row]) -> dict[str, Row]:
    return {r["contestant"]: r for r in rows if is_timed(r) and r["fair"]["ok"] is not False}


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
    yield Bar(what, title, ratios(rival, recorded), least)
    if on_cuda and recorded["case"] == "mlp-32":
        for name, factor in {"keras-fit": 20.0, "hand-keras": 10.0}.items():
            if name in rows:
                what = f"{recorded['label']} against {rows[name]['label']}"
                yield Bar(what, title, ratios(rows[name], recorded), factor)


def eager(rows: dict[str, Row]) -> Iterator[Bar]:
    """The eager loop against each library, with Keras's parts and with those of the library."""
    if any(row["device"] != "cpu" for row in rows.values()):
        return
    for name in [name for name in EAGER if name in rows]:
        for peer in [rows[each] for each in PEERS if each in rows]:
            what = f"{rows[name]['label']} against {peer['label']}"
            yield Bar(what, peer["title"], ratios(peer, rows[name]), 1.0)


def first(rows: Any) -> Row | None:
    """The fastest."""
    return min(rows, key=lambda row: row["us_per_step"]["median"], default=None)


def ratios(other: Row, own: Row) -> list[float]:
    """Times of the other over one's own, round by round."""
    pairs = zip(other["us_per_step"]["all"], own["us_per_step"]["all"], strict=False)
    return [theirs / ours for theirs, ours in pairs]


def table(result: Result) -> Table:
    """A line per requirement, those that do not hold first."""
    lines = [
        [bar.what, bar.case, bar.said(), f"{bar.least:.3g}", "held" if bar.holds else "NOT HELD"]
        for bar in sorted(bars(result), key=lambda bar: bar.holds)
    ]
    header = ["requirement", "case", "times as long (p5 to p95)", "at least", "verdict"]
    return [header, *lines] if lines else []


def sentences(result: Result) -> Iterator[str]:
    """How many hold, and each one that does not."""
    found = bars(result)
    if found:
        yield f"{sum(bar.holds for bar in found)} of {len(found)} requirements held."
    for bar in [bar for bar in found if not bar.holds]:
        yield f"Not held: {bar.case}, {bar.what}: {bar.said()}, at least {bar.least:.3g}."
