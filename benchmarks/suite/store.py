"""The result file of a run, kept as the cases come."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.harness import machine

Row = dict[str, Any]
Result = dict[str, Any]


class Store:
    """A result file that is complete at any moment: every case is written when it is done.

    A file of the same commit, settings and machine is gone on with; any other is begun anew.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path = path
        about = machine(settings["device"])
        self.result: Result = {"suite": 1, "settings": settings, "machine": about, "rows": []}
        self.goes_on = False
        if path.exists():
            old = json.loads(path.read_text())
            if old.get("settings") == settings and same_machine(old["machine"], about):
                self.result, self.goes_on = old, True
        self.result["left_out"] = []

    def cases(self) -> list[str]:
        """Names of the cases that are done."""
        return list(dict.fromkeys(row["case"] for row in self.result["rows"]))

    def forget(self, cases: Iterable[str]) -> None:
        """Drop the rows of these cases."""
        names = set(cases)
        self.result["rows"] = [row for row in self.result["rows"] if row["case"] not in names]

    def add(self, rows: list[Row], facts: dict[str, Any] | None = None) -> None:
        """Keep rows, and facts that belong to no row; write the file."""
        self.result["rows"] += rows
        for key, value in (facts or {}).items():
            self.result.setdefault(key, {}).update(value)
        self.write()

    def write(self) -> None:
        """Write the file at once or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_suffix(".tmp")
        beside.write_text(json.dumps(self.result, indent=1) + "\n")
        os.replace(beside, self.path)


def same_machine(old: dict[str, Any], new: dict[str, Any]) -> bool:
    keys = ("commit", "device", "cpu", "cpu_count", "python", "versions")
    return all(old.get(key) == new[key] for key in keys)
