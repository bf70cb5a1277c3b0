"""`python -m benchmarks compare A B`: what changed beyond the spread."""

from collections.abc import Iterator
from pathlib import Path

from benchmarks.suite.report import read
from benchmarks.suite.tables import Result, Row, is_timed

Key = tuple[str, str]


def compare(old_path: Path, new_path: Path) -> str:
    """The differences of two result files, in lines for people."""
    old, new = read(old_path), read(new_path)
    lines = [*conditions(old, new), *differences(by_key(old), by_key(new))]
    return "\n".join(lines)


def by_key(result: Result) -> dict[Key, Row]:
    return {(row["case"], row["contestant"]): row for row in result["rows"]}


def conditions(old: Result, new: Result) -> Iterator[str]:
    """Where the two were measured, and in what that differs."""
    before, after = old["machine"], new["machine"]
    yield f"{before['commit']} ({before['date'][:10]}) -> {after['commit']} ({after['date'][:10]})"
    for key in ("device", "cpu", "threads", "python", "versions"):
        if before.get(key) != after.get(key):
            yield f"NOT THE SAME {key}: {before.get(key)} -> {after.get(key)}"


def differences(old: dict[Key, Row], new: dict[Key, Row]) -> Iterator[str]:
    """Changed times, the largest first; then rows that came, went, failed or train differently."""
    both = [key for key in new if key in old and is_timed(old[key]) and is_timed(new[key])]
    changed = {key: change(old[key], new[key]) for key in both}
    beyond = {key: ratio for key, ratio in changed.items() if ratio is not None}
    for key, ratio in sorted(beyond.items(), key=lambda item: item[1]):
        word = "faster" if ratio < 1 else "SLOWER"
        yield f"{word:7}{ratio:6.2f} x  {name(new[key])}: {times(old[key])} -> {times(new[key])}"
    yield f"{len(beyond)} of {len(both)} changed beyond the spread"
    for key in [key for key in [*old, *new] if key not in both and key[0] != "built-in"]:
        yield from state(key, old.get(key), new.get(key))
    for key in both:
        if old[key]["fair"]["ok"] is not False and new[key]["fair"]["ok"] is False:
            yield f"ANOTHER LOSS  {name(new[key])}: {new[key]['fair']['why']}"


def change(old: Row, new: Row) -> float | None:
    """New time over old, if the two ranges from 5th to 95th percentile do not meet.

    The time is that relative to the hand loop of the same round, where there is one: a machine that
    is slower today is no change.
    """
    figure = "ratio" if "ratio" in old and "ratio" in new else "us_per_step"
    before, after = old[figure], new[figure]
    if before["p5"] <= after["p95"] and after["p5"] <= before["p95"]:
        return None
    return after["median"] / before["median"]


def state(key: Key, old: Row | None, new: Row | None) -> Iterator[str]:
    """A row that is not in both, or has no figures in one of them."""
    row = new or old
    told, tells = (status(each) for each in (old, new))
    if row is not None and told != tells:
        yield f"{name(row)}: {told} -> {tells}"


def status(row: Row | None) -> str:
    if row is None:
        return "not there"
    if is_timed(row):
        return times(row)
    return row.get("error") or row.get("left_out") or "no figures"


def name(row: Row) -> str:
    return f"{row['title']}, {row['label']}"


def times(row: Row) -> str:
    return "{median:,.0f} us ({p5:,.0f} to {p95:,.0f})".format(**row["us_per_step"])
