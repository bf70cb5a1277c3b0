"""The rows of a result as tables: the same cells for Markdown and HTML."""

from collections.abc import Callable
from typing import Any

Row = dict[str, Any]
Result = dict[str, Any]
Table = list[list[str]]

FAMILIES = ("hand", "keras", "peer", "fitkit", "record", "floor")
POINTS = {
    "mlp-32": {"batch": 32, "layers": 2, "callbacks": 0, "metrics": 0},
    "mlp-1024": {"batch": 1024},
}
"""Cases that are points of curves, too."""


def by_case(result: Result) -> dict[str, list[Row]]:
    """The rows of each case, in the order in which they were measured; no curves."""
    cases: dict[str, list[Row]] = {}
    for row in result["rows"]:
        if "axis" not in row and row["case"] != "built-in":
            cases.setdefault(row["case"], []).append(row)
    return cases


def curves(result: Result) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Per axis and label the points (value, us per step), with those that are cases."""
    axes: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for row in result["rows"]:
        if "axis" in row and is_timed(row):
            line = axes.setdefault(row["axis"], {}).setdefault(row["label"], [])
            line.append((row["value"], row["us_per_step"]["median"]))
    for row in filter(is_timed, result["rows"]):
        for axis, value in POINTS.get(row["case"], {}).items():
            line = axes.get(axis, {}).get(row["label"], [])
            if line and value not in dict(line):
                line.append((value, row["us_per_step"]["median"]))
                line.sort()
    return axes


def callbacks(result: Result) -> list[Row]:
    """The rows of the built-in callbacks."""
    return [row for row in result["rows"] if row["case"] == "built-in"]


def is_timed(row: Row) -> bool:
    """Whether the row has figures."""
    return "us_per_step" in row


def wall_us(row: Row) -> float:
    """Wall time of a step; earlier files have it as its time."""
    return row.get("wall_us_per_step", row["us_per_step"])["median"]


# -- one case --------------------------------------------------------------------------------------


def case_table(rows: list[Row]) -> Table:
    """A header and a line per contestant, the fastest first, those without figures last.

    Columns that no row fills are left out.
    """
    timed = sorted(filter(is_timed, rows), key=lambda row: row["us_per_step"]["median"])
    untimed = [row for row in rows if not is_timed(row)]
    used = [name for name, cell in COLUMNS.items() if any(cell(row) for row in timed)]
    table = [["contestant", *used, "note"]]
    for row in [*timed, *untimed]:
        cells = [COLUMNS[name](row) if is_timed(row) else "" for name in used]
        table.append([row["label"], *cells, note(row)])
    return table


def note(row: Row) -> str:
    """Why a row is not as it should be, or what is to be known about it."""
    if not is_timed(row):
        return row.get("error") or row.get("left_out") or "no figures"
    parts = [row["note"]] if "note" in row else []
    if "loader_us" in row:
        parts.append(f"the DataLoader alone takes {row['loader_us']:,.0f} us per batch")
    if row["fair"]["ok"] is False:
        parts.append(f"not the same training: {row['fair']['why']}")
    agreed = row.get("agreement")
    if agreed is not None and agreed["ok"] is False:
        parts.append(f"its own Benchmark says {agreed['benchmark_us']:,.0f} us")
    return "; ".join(parts)


def time_cell(row: Row) -> str:
    return "{median:,.0f} ({p5:,.0f} to {p95:,.0f})".format(**row["us_per_step"])


def loss_cell(row: Row) -> str:
    fair = row["fair"]
    if fair["ok"] is None:
        return "reference" if "reference" in fair["why"] else ""
    if fair["difference"] == 0:
        return "equal"
    return ("" if fair["ok"] else "NO: ") + f"{fair['difference']:.0e}"


def agreement_cell(row: Row) -> str:
    agreed = row.get("agreement")
    return "" if agreed is None or agreed["ok"] is None else f"{agreed['difference']:+.1%}"


def number(key: str, text: str) -> Callable[[Row], str]:
    return lambda row: "" if row.get(key) is None else text.format(row[key])


COLUMNS: dict[str, Callable[[Row], str]] = {
    "us per step (p5 to p95)": time_cell,
    "wall us": lambda row: f"{wall_us(row):,.0f}",
    "samples/s": lambda row: f"{row['samples_per_s']['median']:,.0f}",
    "of the hand loop": lambda row: f"{row['ratio']['median']:.3g}" if "ratio" in row else "",
    "above bare kernels, us": number("over_floor_us", "{:,.0f}"),
    "first step, s": number("first_step_s", "{:.1f}"),
    "host, MB": number("host_mb", "{:,.0f}"),
    "device, MB": number("device_mb", "{:,.0f}"),
    "kernels run": number("kernel_share", "{:.0%}"),
    "syncs per step": number("syncs_per_step", "{:.2f}"),
    "MFU": number("mfu", "{:.1%}"),
    "loss": loss_cell,
    "own Benchmark": agreement_cell,
}


# -- all cases -------------------------------------------------------------------------------------


def overview(result: Result) -> Table:
    """Contestants by cases: us per step, and the time as a part of the hand loop's."""
    cases = by_case(result)
    table = [["us per step (of the hand loop)", *(rows[0]["title"] for rows in cases.values())]]
    for name, label in labels(result).items():
        found = [row_of(name, rows) for rows in cases.values()]
        if any(row is not None and is_timed(row) for row in found):
            table.append([label, *map(overview_cell, found)])
    if any(cell.endswith("*") for line in table for cell in line):
        table.append(["\\* not the same training", *[""] * len(cases)])
    return table


def labels(result: Result) -> dict[str, str]:
    """Contestants of the cases, by name: by family, in their order."""
    rows = [row for rows in by_case(result).values() for row in rows]
    rows.sort(key=lambda row: FAMILIES.index(row["family"]))
    return {row["contestant"]: row["label"] for row in rows}


def row_of(name: str, rows: list[Row]) -> Row | None:
    return next((row for row in rows if row["contestant"] == name), None)


def overview_cell(row: Row | None) -> str:
    if row is None:
        return ""
    if not is_timed(row):
        return "failed" if "error" in row else ""
    ratio = f" ({row['ratio']['median']:.3g})" if "ratio" in row else ""
    return f"{row['us_per_step']['median']:,.0f}{ratio}" + (
        " *" if row["fair"]["ok"] is False else ""
    )


def callbacks_table(rows: list[Row]) -> Table:
    """What each built-in callback adds."""
    modes = list(rows[0]["adds_us"])
    table = [["callback", *(f"{mode} adds, us" for mode in modes), "its bare kernels, us"]]
    for row in rows:
        cells = [f"{row['adds_us'][mode]:.1f}{added(row, mode)}" for mode in modes]
        table.append([row["label"], *cells, f"{row['kernels_us']:.1f}"])
    return table


def added(row: Row, mode: str) -> str:
    """The 5th and 95th percentile of what it adds."""
    return " ({:.1f} to {:.1f})".format(*row["adds_p5_p95"][mode])


def curve_table(lines: dict[str, list[tuple[int, float]]]) -> Table:
    """Points by contestants."""
    values = sorted({value for points in lines.values() for value, _ in points})
    table = [["us per step at", *map(str, values)]]
    for label, points in lines.items():
        times = dict(points)
        table.append([label, *(f"{times[v]:,.0f}" if v in times else "" for v in values)])
    return table


# -- text ------------------------------------------------------------------------------------------


def markdown(table: Table) -> str:
    """The table in Markdown, numbers to the right."""
    header, *rows = table
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    if header[-1] == "note":
        lines[1][-1] = "---"
    escaped = [[cell.replace("|", "/") for cell in row] for row in lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in escaped)
