"""How much of a run is done, and what it has come to."""

import contextlib
from collections.abc import Mapping, Sequence

from fitkit.errors import UnknownLogError
from fitkit.loop.history import History
from fitkit.loop.state import State
from fitkit.watch.console import number
from fitkit.watch.text_table import short, text_table

__all__ = ["run_summary", "share_done"]

Row = Mapping[str, float]


def run_summary(
    history: History, state: State, begin: tuple[int, int], seconds: float
) -> list[str]:
    """Return a table with the logs of the first, the best and the last epoch, and the speed.

    Args:
        history: All rows of the loop.
        state: At the end of the run.
        begin: Rows and samples there were before.
        seconds: How long the run took.

    Returns:
        Lines; none for a run of less than two epochs.
    """
    num_rows, num_samples = begin
    rows = history.rows[num_rows:]
    if len(rows) < 2:
        return []
    shown: dict[str, Row] = {"first": rows[0]}
    with contextlib.suppress(UnknownLogError):  # a run may log no loss
        shown["best"] = history.best()
    shown["last"] = rows[-1]
    num_samples = state.num_samples - num_samples
    speed = f", {num_samples / seconds:,.0f} samples/s" if seconds else ""
    total = f"{len(rows)} epochs, {num_samples:,} samples in {seconds:.1f} s{speed}"
    return [*_table(shown, state.max_epochs or len(history)), total]


def _table(shown: Mapping[str, Row], num_epochs: int) -> list[str]:
    head = ["", *(f"{what}: {row['epoch'] + 1}/{num_epochs}" for what, row in shown.items())]
    names = list(dict.fromkeys(name for row in shown.values() for name in row))
    names = [name for name in names if "/" not in name and name not in ("epoch", "num_updates")]
    names.sort(key=lambda name: (name == "lr", name.startswith("val_")))
    cells: list[Sequence[str]] = [
        [short(name), *(number(row[name]) if name in row else "" for row in shown.values())]
        for name in names
    ]
    return text_table(head, cells)


def share_done(state: State) -> float:
    """Return how much of the run is done, from 0 to 1, by the limit that comes first.

    To be asked in a training pass, or outside of any.
    """
    of_epoch = 1.0 if state.epoch_batches else 0.0  # a pass that is over is a whole one
    if hasattr(state, "phase"):
        num_batches = state.num_batches_expected
        of_epoch = state.epoch_batches / num_batches if num_batches else 0.0
    epochs = state.epoch + of_epoch
    shares = [
        epochs / state.max_epochs if state.max_epochs else 0.0,
        state.num_updates / state.max_steps if state.max_steps else 0.0,
        state.elapsed_s / state.max_time_s if state.max_time_s else 0.0,
    ]
    return min(max(shares), 1.0)
