"""The picture of a history: a chart per metric, training against validation."""

from collections.abc import Mapping, Sequence
from typing import Any

from fitkit.loop.figure import new_figure

__all__ = ["charts_of", "draw_history"]

Row = Mapping[str, float]
_NO_METRICS = ("epoch", "num_updates", "lr")
_MAX_TICKS = 12
_MAX_SHOWN = 40  # characters of a name
_COLORS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown")


def draw_history(
    rows: Sequence[Row],
    charts: Mapping[str, list[str]],
    *,
    best: tuple[str, Row] | None,
    figure: Any = None,
    shown: bool = True,
) -> list[Any]:
    """Draw charts over the updates; return their matplotlib axes.

    Args:
        rows: One per epoch.
        charts: What `charts_of` returned, at least one.
        best: The value by which an epoch is the best one, and its row.
        figure: Where to draw; default is a new one.
        shown: Whether notebooks and `pyplot.show()` know a new one.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    columns = min(len(charts), 2)
    lines = -(-len(charts) // columns)
    if figure is None:
        figure = new_figure(5.5 * columns, 3.4 * lines, shown=shown)
    all_axes = list(figure.subplots(lines, columns, squeeze=False).flat)
    for axes, (title, curves) in zip(all_axes, charts.items(), strict=False):
        _draw(axes, title, curves, rows, best)
    for axes in all_axes[len(charts) :]:
        axes.remove()
    return all_axes[: len(charts)]


def charts_of(rows: Sequence[Row], names: Sequence[str] | None) -> dict[str, list[str]]:
    """Return the curves of each chart: `loss` with `val_loss` and `val_<loader>_loss`.

    Args:
        rows: One per epoch.
        names: A chart for each, without curves where nothing is logged; None for the loss and all
            metrics, which may be none at all.
    """
    logged = list(dict.fromkeys(name for row in rows for name in row))
    if names is None:
        names = [n for n in logged if "/" not in n and not n.startswith("val_")]
        names = [n for n in names if n not in _NO_METRICS]
        names += [n.removeprefix("val_") for n in logged if n.startswith("val_")]
        names = sorted(dict.fromkeys(names), key=lambda name: name != "loss")
        bases = [n for n in names if n in logged]
        # val_near_loss is a curve of the chart `loss`, and no chart of its own
        names = [n for n in names if n in logged or not any(n.endswith(f"_{b}") for b in bases)]
    logged.sort(key=lambda name: name not in names)  # training has the first color everywhere
    return {name: [n for n in logged if _belongs(n, name, names)] for name in names}


def _belongs(curve: str, chart: str, charts: Sequence[str]) -> bool:
    if curve == chart:
        return True
    if not curve.startswith("val_"):
        return False
    ends = [c for c in charts if curve.endswith(f"_{c}")]  # the longest: val_top_loss is top_loss
    return bool(ends) and max(ends, key=len) == chart


def _draw(
    axes: Any, title: str, curves: list[str], rows: Sequence[Row], best: tuple[str, Row] | None
) -> None:
    marker = "o" if len(rows) <= 40 else ""
    for curve, color in zip(curves, _COLORS * len(curves), strict=False):
        seen = [(row["num_updates"], row[curve]) for row in rows if curve in row]
        label = "train" if curve == title else _plain(_loader(curve, title))
        axes.plot(*zip(*seen, strict=True), label=label, color=color, marker=marker, markersize=3)
    if best is not None:
        name, row = best
        label = f"best: epoch {row['epoch']}" + (f", {row[name]:.4g}" if name in curves else "")
        axes.axvline(row["num_updates"], color="gray", linestyle="--", linewidth=1, label=label)
        if name in curves:
            axes.plot(row["num_updates"], row[name], marker="*", markersize=11, color="black")
    axes.set_title(_plain(title), fontsize=11)
    axes.set_xlabel("updates")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(fontsize=8)
    _mark_epochs(axes, rows)


def _loader(curve: str, title: str) -> str:
    return curve.removesuffix(f"_{title}") or curve


def _mark_epochs(axes: Any, rows: Sequence[Row]) -> None:
    """Mark where epochs end; write only as many numbers as can be read."""
    steps = (factor * 10**power for power in range(9) for factor in (1, 2, 5))
    marked = rows[:: next(step for step in steps if len(rows) <= step * _MAX_TICKS)]
    for row in marked:
        axes.axvline(row["num_updates"], color="black", alpha=0.08, linewidth=1, zorder=0)
    top = axes.secondary_xaxis("top")
    top.set_xticks([row["num_updates"] for row in marked], [f"{row['epoch']}" for row in marked])
    top.tick_params(labelsize=8, length=2)
    top.set_xlabel("end of epoch", fontsize=8)


def _plain(text: str) -> str:
    """Return a name as text: neither a formula, nor hidden as an underscore hides a label."""
    shown = "".join(char if char.isprintable() else "?" for char in text[:_MAX_SHOWN])
    return shown.replace("$", r"\$").lstrip("_") or "?"
