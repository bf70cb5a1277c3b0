"""The result file of a run, kept as the cases come."""

import json
import os
from pathlib import Path
from typing import Any

from benchmarks.harness import machine
from benchmarks.suite.cases import AXES, CASES
from benchmarks.suite.words import NO_TIME

Row = dict[str, Any]
Result = dict[str, Any]


class Store:
    """A result file that is complete at any moment: every case is written when it is done.

    A file of the same commit, settings and machine is gone on with; any other is moved aside.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path = path
        self.settings: dict[str, Any] = json.loads(json.dumps(settings))  # as they are read again
        self.moved: Path | None = None
        self.result = self._empty()
        if path.exists():
            old = json.loads(path.read_text())
            if self._is_the_same(old):
                self.result = old
            else:
                self.move_aside()

    def done(self, case: str) -> list[str]:
        """Names of the contestants that have a row for the case."""
        return [row["contestant"] for row in self.result["rows"] if row["case"] == case]

    def late(self, case: str) -> list[str]:
        """Names of those that there was no time for in the case."""
        rows = [row for row in self.result["rows"] if row["case"] == case]
        return [r["contestant"] for r in rows if r.get("left_out", "").startswith(NO_TIME)]

    def move_aside(self) -> None:
        """Keep the file under another name and begin with an empty one."""
        date = json.loads(self.path.read_text()).get("machine", {}).get("date", "")
        stamp = "".join(filter(str.isdigit, date))
        self.moved = self.path.with_suffix(f".{stamp}.old")
        os.replace(self.path, self.moved)
        self.result = self._empty()

    def put(self, case: str, rows: list[Row]) -> None:
        """Keep the rows of a case instead of those that are there; write the file."""
        others = [row for row in self.result["rows"] if row["case"] != case]
        self.result["rows"] = sorted(others + rows, key=lambda row: place(row["case"]))
        self.result["left_out"] = [name for name in self.result["left_out"] if name != case]
        self.write()

    def leave_out(self, case: str) -> None:
        """Name a case that there is no time for."""
        if case not in self.result["left_out"]:
            self.result["left_out"].append(case)
        self.write()

    def write(self) -> None:
        """Write the file at once or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_suffix(".tmp")
        beside.write_text(json.dumps(self.result, indent=1) + "\n")
        os.replace(beside, self.path)

    def _empty(self) -> Result:
        about = machine(self.settings["device"])
        return {
            "suite": 1, "settings": self.settings, "machine": about, "rows": [], "left_out": [],
        }  # fmt: skip

    def _is_the_same(self, old: Result) -> bool:
        keys = ("commit", "device", "cpu", "cpu_count", "python", "versions")
        about, was = self.result["machine"], old.get("machine", {})
        return old.get("settings") == self.settings and all(
            was.get(key) == about[key] for key in keys
        )


def place(case: str) -> tuple[int, int]:
    """Where the rows of a case stand, whenever it was measured: cases, curves, the rest."""
    axis, _, value = case.partition("=")
    order = [*CASES, *AXES]
    return order.index(axis) if axis in order else len(order), int(value or 0)
