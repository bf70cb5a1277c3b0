"""Charts of a result, drawn by matplotlib without a display."""

import io
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from benchmarks.suite.tables import Result, Row, by_case, callbacks, curves, is_timed, labels

COLORS = {
    "record": "#0b6e4f",
    "fitkit": "#3fb28a",
    "hand": "#6b7280",
    "keras": "#d0663a",
    "peer": "#8fa8c8",
    "floor": "#d9d9d9",
}
NAMES = {
    "record": "fitkit, recorded",
    "fitkit": "fitkit, eager",
    "hand": "hand-written loop",
    "keras": "Keras fit",
    "peer": "other libraries",
    "floor": "bare kernels",
}
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
}
CLIP = 2.0
PLATE = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
PANELS = 5
"""In a line."""


def overview_chart(result: Result) -> bytes | None:
    """One panel per case, one line per contestant: time of a step as a part of the hand loop's."""
    cases, names = by_case(result), labels(result)
    names = {n: label for n, label in names.items() if any_timed(cases, n)}
    if not names:
        return None
    lines = -(-len(cases) // PANELS)
    columns = -(-len(cases) // lines)
    with plt.rc_context(STYLE):
        size = (2.6 + 2.0 * columns, 1.0 + lines * (0.7 + 0.22 * len(names)))
        figure, axes = plt.subplots(lines, columns, figsize=size, sharey=True, squeeze=False)
        for axis in axes.flat[len(cases) :]:
            axis.set_axis_off()
        for axis, rows in zip(axes.flat, cases.values(), strict=False):
            panel(axis, rows, list(names))
        axes[0][0].set_yticks(range(len(names)), list(names.values()))
        axes[0][0].invert_yaxis()
        figure.supxlabel(
            f"time of a step, as a part of that of: {baselines(result)}; less is faster;\n"
            "hatched: not the same training",
            fontsize=9,
        )
        legend(figure, {row["family"] for rows in cases.values() for row in rows})
        return png(figure)


def any_timed(cases: dict[str, list[Row]], name: str) -> bool:
    return any(r["contestant"] == name and is_timed(r) for rows in cases.values() for r in rows)


def panel(axis: Axes, rows: list[Row], names: list[str]) -> None:
    """The bars of a case; a bar that does not fit is cut, its number tells."""
    found = {row["contestant"]: row for row in rows}
    for place, name in enumerate(names):
        row = found.get(name)
        if row is None or "ratio" not in row:
            text = "failed" if row and "error" in row else "–"
            axis.text(0.02, place, text, va="center", color="#999999", fontsize=8)
            continue
        ratio = row["ratio"]["median"]
        axis.barh(
            place, min(ratio, CLIP), color=COLORS[row["family"]], height=0.75, hatch=hatch(row)
        )
        if ratio > CLIP:  # two white strokes: the bar goes on
            axis.plot([CLIP - 0.12, CLIP - 0.06], [place] * 2, "w", marker=(2, 0, -20), mew=1.5,
                      linestyle="", markersize=11)  # fmt: skip
        axis.text(
            min(ratio, CLIP) + 0.03, place, f"{ratio:.3g}", va="center", fontsize=8, bbox=PLATE
        )
    axis.axvline(1, color="#333333", linewidth=0.8, linestyle=":")
    axis.margins(y=0.01)
    axis.set_xlim(0, CLIP + 0.35)
    axis.set_xticks([0, 1, 2])
    axis.tick_params(axis="y", length=0)
    axis.set_title(wrapped(rows[0]["title"]))


def hatch(row: Row) -> str | None:
    """Strokes over the bar of a row that has not trained the same."""
    return "////" if row["fair"]["ok"] is False else None


def baselines(result: Result) -> str:
    """What the ratios compare with, by name."""
    found = {
        row["baseline"] for rows in by_case(result).values() for row in rows if "baseline" in row
    }
    return " or ".join(f'"{label}"' for name, label in labels(result).items() if name in found)


def wrapped(title: str) -> str:
    """Broken at the comma, or before what it is made of."""
    return title.replace(", ", ",\n", 1) if ", " in title else title.replace(" of ", "\nof ", 1)


def case_chart(rows: list[Row]) -> bytes | None:
    """Bars of us per step with their spread, the fastest on top."""
    timed = sorted(filter(is_timed, rows), key=lambda row: row["us_per_step"]["median"])
    if not timed:
        return None
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(8.5, 0.8 + 0.27 * len(timed)))
        furthest = max(row["us_per_step"]["median"] for row in timed)
        for place, row in enumerate(timed):
            us = row["us_per_step"]
            color = COLORS[row["family"]]
            axis.barh(place, us["median"], color=color, height=0.72, hatch=hatch(row))
            spread = ([us["median"] - us["p5"]], [us["p95"] - us["median"]])
            axis.errorbar(us["median"], place, xerr=spread, color="#222222", linewidth=0.9)
            text = f" {us['median']:,.0f}"
            at = min(us["p95"], 1.22 * furthest)
            axis.text(at + 0.01 * furthest, place, text, va="center", fontsize=8, bbox=PLATE)
        axis.set_yticks(range(len(timed)), [row["label"] for row in timed])
        axis.margins(y=0.01)
        axis.invert_yaxis()
        axis.set_xlim(0, 1.3 * furthest)
        axis.set_xlabel("us per step (line: 5th to 95th percentile)")
        return png(figure)


def curves_chart(result: Result) -> bytes | None:
    """How a step grows: one panel per axis."""
    axes_of = curves(result)
    if not axes_of:
        return None
    families = {row["label"]: row["family"] for row in result["rows"]}
    with plt.rc_context(STYLE):
        columns = min(2, len(axes_of))
        lines = -(-len(axes_of) // columns)
        figure, axes = plt.subplots(lines, columns, figsize=(10, 3.4 * lines), squeeze=False)
        for axis in axes.flat[len(axes_of) :]:
            axis.set_axis_off()
        for axis, (name, drawn) in zip(axes.flat, axes_of.items(), strict=False):
            curve(axis, name, drawn, families)
        handles, texts = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, texts, loc="outside lower center", ncols=3, frameon=False)
        return png(figure)


def curve(axis: Axes, name: str, drawn: dict[str, Any], families: dict[str, str]) -> None:
    markers = dict(zip(drawn, "osD^vPX*", strict=False))
    for label, points in drawn.items():
        x, y = zip(*sorted(points), strict=True)
        style = {"color": COLORS[families[label]], "marker": markers.get(label, "o")}
        if families[label] == "floor":
            style["color"] = "#b0b0b0"
        axis.plot(x, y, label=label, markersize=4, linewidth=1.4, **style)
    if name in ("batch", "layers"):
        axis.set_xscale("log", base=2)
        axis.set_xticks(x, [f"{value:,}" for value in x])
        axis.minorticks_off()
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.set_title({"batch": "batch size"}.get(name, f"number of {name}"))
    axis.set_ylabel("us per step")
    axis.grid(axis="y", color="#eeeeee")


def callbacks_chart(result: Result) -> bytes | None:
    """What every built-in callback adds to a step."""
    rows = callbacks(result)
    if not rows:
        return None
    modes = list(rows[0]["adds_us"])
    colors = dict(zip(modes, (COLORS["fitkit"], COLORS["record"]), strict=False))
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(8.5, 0.8 + 0.36 * len(rows)))
        for place, row in enumerate(rows):
            for shift, mode in enumerate(modes):
                at, us = place + 0.36 * (shift - 0.5), row["adds_us"][mode]
                axis.barh(at, us, height=0.34, color=colors[mode])
                axis.text(max(us, 0), at, f" {us:.0f}", va="center", fontsize=7)
        axis.set_yticks(range(len(rows)), [row["label"] for row in rows])
        axis.invert_yaxis()
        axis.set_xlabel("us of CPU time added to a step")
        axis.margins(x=0.08, y=0.01)
        handles = [Patch(color=c, label=m) for m, c in colors.items()]
        figure.legend(handles=handles, loc="outside upper center", ncols=2, frameon=False)
        return png(figure)


def legend(figure: Figure, families: set[str]) -> None:
    handles = [Patch(color=COLORS[f], label=NAMES[f]) for f in NAMES if f in families]
    figure.legend(
        handles=handles,
        loc="outside upper center",
        ncols=min(len(handles), 1 + int(figure.get_figwidth() // 2.2)),
        frameon=False,
    )


def png(figure: Figure) -> bytes:
    """The finished picture; without a date in it, so that it only changes with its figures."""
    figure.set_layout_engine("constrained")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
    plt.close(figure)
    return buffer.getvalue()
