"""The outcomes on disk (docs/record_matrix.json), and the table in docs/record.md made of them."""

import json
from pathlib import Path

from docs.marked import fill
from tests.record_matrix.row import Row, Verdict

DOCS = Path(__file__).parents[2] / "docs"
PAGE, RESULTS = DOCS / "record.md", DOCS / "record_matrix.json"

WORDS = {
    "recorded": "recorded, equal",
    "rounding": "recorded, within 1e-6",
    "metrics eager": "recorded, metrics eager",
    "refused": "eager",
    "needs CUDA": "not on a CPU",
    "WRONG": "WRONG",
}


def outcome(verdict: Verdict) -> str:
    """The outcome, with "rounding" for a recorded row that is not equal bit by bit."""
    rounded = verdict.outcome == "recorded" and verdict.difference > 0
    return "rounding" if rounded else verdict.outcome


def entry(row: Row, verdict: Verdict) -> dict[str, str]:
    """A row as it is stored."""
    return {
        "group": row.group,
        "name": row.name,
        "outcome": outcome(verdict),
        "reason": verdict.reason,
    }


def stored() -> list[dict[str, str]]:
    """The outcomes of the last full run."""
    return json.loads(RESULTS.read_text())


def store(entries: list[dict[str, str]]) -> None:
    """Write outcomes and page."""
    RESULTS.write_text(json.dumps(entries, indent=1) + "\n")
    PAGE.write_text(page(entries))


def page(entries: list[dict[str, str]]) -> str:
    """The page with the table of these outcomes."""
    return fill(PAGE.read_text(), "matrix", render(entries))


def render(entries: list[dict[str, str]]) -> str:
    """Counts per group, then what is not plainly recorded, then the names of what is."""
    groups = list(dict.fromkeys(entry["group"] for entry in entries))
    lines = ["| Group | " + " | ".join(WORDS[o] for o in _used(entries)) + " |"]
    lines.append("| --- |" + " ---: |" * len(_used(entries)))
    for group in groups:
        counts = [str(_count(entries, group, o) or "") for o in _used(entries)]
        lines.append(f"| {group} | {' | '.join(counts)} |")
    for group in groups:
        lines += ["", f"### {group}", ""]
        lines += _group([entry for entry in entries if entry["group"] == group])
    return "\n".join(lines)


def _used(entries: list[dict[str, str]]) -> list[str]:
    return [o for o in WORDS if any(entry["outcome"] == o for entry in entries)]


def _count(entries: list[dict[str, str]], group: str, word: str) -> int:
    return sum(entry["group"] == group and entry["outcome"] == word for entry in entries)


def _group(entries: list[dict[str, str]]) -> list[str]:
    plain = [f"`{e['name']}`" for e in entries if e["outcome"] == "recorded"]
    lines = [f"Recorded, equal bit by bit: {', '.join(plain)}."] if plain else []
    others = [e for e in entries if e["outcome"] != "recorded"]
    if others:
        lines += ["", "| What | Outcome | Why |", "| --- | --- | --- |"]
    for e in others:
        reason = e["reason"].replace("|", "\\|").replace("\n", " ")
        lines.append(f"| `{e['name']}` | {WORDS[e['outcome']]} | {reason} |")
    return lines
