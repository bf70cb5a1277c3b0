"""Rows of a result file, built from what was measured."""

import statistics
from importlib import metadata
from typing import Any

import numpy as np

from benchmarks.harness import machine, ratios, spread
from benchmarks.suite.cases import Case
from benchmarks.suite.checks import agreement, fairness
from benchmarks.suite.contestants import CONTESTANTS
from benchmarks.suite.probes import peak_flops

Row = dict[str, Any]

_ABOUT = ("commit", "date", "load_average", "threads", "cpu", "python")


def rows_of(case: Case, measured: dict[str, Row], settings: dict[str, Any]) -> list[Row]:
    """One row per contestant, with everything needed to read it alone."""
    about = machine(settings["device"])
    rows = []
    for name, found in measured.items():
        row = heading(case, name, settings, about)
        if "us" in found:
            row |= figures(case, found, settings)
            row |= {
                "fair": fairness(name, measured, case.comparable_steps),
                "agreement": agreement(found),
            }
            if "baseline" in found:
                row["baseline"] = found["baseline"]
                row["ratio"] = spread(paired(found["us"], found["baseline_us"]))
            if "us" in measured.get("floor", {}):
                floor = statistics.median(measured["floor"]["us"])
                row["over_floor_us"] = row["us_per_step"]["median"] - floor
                row |= utilization(row, measured["floor"]["told"])
            if "note" in found.get("told", {}):
                row["note"] = found["told"]["note"]
            if name == "floor":
                row["loader_us"] = found["told"]["loader_us"]
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
    speed = 1e6 / np.array(found["wall_us"])
    row = {
        "rounds": len(found["wall_us"]),
        "steps": found["steps"],
        "us_per_step": spread(found["us"]),
        "wall_us_per_step": spread(found["wall_us"]),
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
