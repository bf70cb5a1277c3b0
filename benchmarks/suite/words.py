"""What a result says, in sentences."""

import statistics
from collections.abc import Iterator

from benchmarks.suite.bars import MIN_ROUNDS, fair_rows, first, ratios
from benchmarks.suite.plan import title_of
from benchmarks.suite.tables import Result, Row, by_case, is_timed, wall_us

BUSY = 1.15
NO_TIME = "no time"
NOBODY = "there is no hand loop to compare with"


def measured(result: Result) -> str:
    """Where, when and with what, in one sentence."""
    about = result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in all_versions(result).items())
    device = about["cpu"] if about["device"] == "cpu" else f"{about['device']} ({about['cpu']})"
    return (
        f"Measured at commit {about['commit']} on {about['date'][:10]}, {device}, "
        f"{about['threads']} thread(s), {versions}."
    )


def all_versions(result: Result) -> dict[str, str]:
    versions: dict[str, str] = {}
    for row in result["rows"]:
        versions |= row["versions"]
    return versions


def doubts(result: Result) -> Iterator[str]:
    """What does not hold, in sentences; nothing if all is well."""
    for row in result["rows"]:
        if is_timed(row) and row["fair"]["ok"] is False:
            yield f"{row['title']}, {row['label']}: {row['fair']['why']}."
        agreed = row.get("agreement")
        if agreed is not None and agreed["ok"] is False:
            yield (
                f"{row['title']}, {row['label']}: the clock says {agreed['outside_us']:,.0f} us, "
                f"Benchmark {agreed['benchmark_us']:,.0f} us."
            )
        if agreed is not None and agreed["ok"] is None:
            yield f"{row['title']}, {row['label']}: no word of Benchmark, {agreed['why']}."
        if is_timed(row) and row["fair"].get("why") == NOBODY:
            yield f"{row['title']}, {row['label']}: its loss was not checked, {NOBODY}."
        if "error" in row:
            yield f"{row['title']}, {row['label']} failed: {row['error']}."
    yield from short_of_time(result)
    if (busy := busyness(result)) > BUSY:
        yield f"The machine was busy: steps took {busy:.1f} times their CPU time. Measure again."
    if result["left_out"]:
        yield f"There was no time for: {', '.join(map(title_of, result['left_out']))}."


def short_of_time(result: Result) -> Iterator[str]:
    """What there was too little time for."""
    for rows in by_case(result).values():
        few = [row["rounds"] for row in rows if is_timed(row) and row["rounds"] < MIN_ROUNDS]
        if few:
            yield f"{rows[0]['title']}: only {min(few)} rounds, too few to compare."
    late: dict[str, list[str]] = {}
    for row in result["rows"]:
        if row.get("left_out", "").startswith(NO_TIME):
            late.setdefault(row["title"], []).append(row["label"])
    for title, labels in late.items():
        yield f"{title}: no time for {'; '.join(labels)}."


def busyness(result: Result) -> float:
    """Wall time over CPU time, the median of the rows: 1 where nobody else computes."""
    ratios = [
        wall_us(row) / (row["threads"] * row["cpu_us_per_step"]["median"])
        for row in result["rows"]
        if is_timed(row) and row["device"] == "cpu"
    ]
    return statistics.median(ratios) if len(ratios) > 0 else 1.0


def headlines(result: Result) -> Iterator[str]:
    """What the cases say about fitkit, one line each."""
    for rows in by_case(result).values():
        same = fair_rows(rows).values()
        best = first(row for row in same if row["family"] == "record")
        rival = first(row for row in same if row["family"] not in ("record", "fitkit", "floor"))
        if best is None or rival is None:
            continue
        yield (
            f"{best['title']}: {best['label']} takes {median_us(best):,.0f} us per step, "
            f"{rival['label']}, the fastest other, {median_us(rival):,.0f} us "
            f"({statistics.median(ratios(rival, best)):.1f} times as much in the same rounds)."
        )


def median_us(row: Row) -> float:
    return row["us_per_step"]["median"]
