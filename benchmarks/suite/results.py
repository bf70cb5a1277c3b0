"""Rows of a result file: built from what was measured, checked for fairness, kept as they come."""

import json
import os
import statistics
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import machine, ratios, spread
from benchmarks.suite.cases import Case
from benchmarks.suite.contestants import CONTESTANTS
from benchmarks.suite.probes import peak_flops

Row = dict[str, Any]
Result = dict[str, Any]

TOLERANCE = 1e-3
BETWEEN_PARTS = 0.03
AGREEMENT = 0.03
HAND = {"Keras": "hand-keras", "torch": "hand-torch"}
_ABOUT = ("commit", "date", "load_average", "threads", "cpu", "python")


# -- rows ------------------------------------------------------------------------------------------


def rows_of(case: Case, measured: dict[str, Row], settings: dict[str, Any]) -> list[Row]:
    """One row per contestant, with everything needed to read it alone."""
    about = machine(settings["device"])
    baseline = next((name for name in HAND.values() if "wall_us" in measured.get(name, {})), None)
    rows = []
    for name, found in measured.items():
        row = heading(case, name, settings, about)
        if "wall_us" in found:
            row |= figures(case, found, settings)
            row |= {"fair": fairness(name, measured), "agreement": agreement(case, found)}
            if baseline is not None:
                row["baseline"] = baseline
                row["ratio"] = spread(paired(found["wall_us"], measured[baseline]["wall_us"]))
            if "wall_us" in measured.get("floor", {}):
                floor = statistics.median(measured["floor"]["wall_us"])
                row["over_floor_us"] = row["us_per_step"]["median"] - floor
                row |= utilization(row, measured["floor"]["told"])
        else:
            row |= found
        rows.append(row)
    return rows


def heading(case: Case, name: str, settings: dict[str, Any], about: dict[str, Any]) -> Row:
    """What is measured, where, with which versions."""
    contestant = CONTESTANTS[name]
    versions = dict(about["versions"])
    if contestant.missing is None:
        versions[contestant.package] = version_of(contestant.package)
    return {
        "case": case.name,
        "title": case.title,
        "contestant": name,
        "label": contestant.label,
        "family": contestant.family,
        "parts": contestant.parts,
        **({"axis": case.axis, "value": case.value} if case.axis else {}),
        "batch": case.batch,
        "device": settings["device"],
        "device_name": about["device"] if settings["device"] != "cpu" else about["cpu"],
        "versions": versions,
        **{key: about[key] for key in _ABOUT},
        "warmup_rounds": settings["warmup"],
    }


def version_of(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def figures(case: Case, found: Row, settings: dict[str, Any]) -> Row:
    """Times, speeds, memory."""
    us = spread(found["wall_us"])
    speed = 1e6 / np.array(found["wall_us"])
    row = {
        "rounds": len(found["wall_us"]),
        "steps": found["steps"],
        "us_per_step": us,
        "cpu_us_per_step": spread(found["cpu_us"]),
        "steps_per_s": percentiles(speed),
        "samples_per_s": percentiles(speed * case.batch),
        "first_step_s": found["first_step_s"],
    }
    memory = found.get("memory", {})
    if memory:
        row["host_mb"] = memory["host_mb"] - memory["host_before_mb"]
        row |= {key: memory[key] for key in ("device_mb", "device_reserved_mb") if key in memory}
    row |= {key: found[key] for key in ("kernel_share",) if key in found}
    if "syncs" in found:
        row["syncs_per_step"] = found["syncs"] / found["steps"]
    return row


def utilization(row: Row, told: Row) -> Row:
    """Countable FLOPs per second, and their share of what the device can do.

    That is the maker's figure where it is known, and else the device's own best rate of matrix
    products.
    """
    flops_per_s = told["flops_per_step"] / (row["us_per_step"]["median"] / 1e6)
    makers = peak_flops(row["device_name"]) if row["device"] != "cpu" else None
    peak = makers or told["matmul_flops_per_s"]
    return {"flops_per_s": flops_per_s, "mfu": flops_per_s / peak,
            "mfu_of": "maker's TF32 figure" if makers else "measured matrix products"}  # fmt: skip


def percentiles(values: Any) -> dict[str, float]:
    p5, median, p95 = np.percentile(values, [5, 50, 95])
    return {"median": float(median), "p5": float(p5), "p95": float(p95)}


def paired(values: list[float], baseline: list[float]) -> list[float]:
    """Ratios of the rounds that both have."""
    num = min(len(values), len(baseline))
    return ratios(values[:num], baseline[:num])


# -- checks ----------------------------------------------------------------------------------------


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
    difference = abs(losses[steps] - theirs[steps]) / abs(theirs[steps])
    ok = bool(difference <= tolerance)  # nan is not within
    row = {
        "ok": ok,
        "loss": losses[steps],
        "reference": reference,
        "reference_loss": theirs[steps],
        "after_steps": steps,
        "difference": difference,
        "tolerance": tolerance,
    }
    if not ok:
        row["why"] = f"its loss after {steps} steps is {difference:.1%} off that of {reference}"
    return row


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


# -- the file --------------------------------------------------------------------------------------


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
