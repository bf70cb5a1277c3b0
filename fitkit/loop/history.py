"""What was logged, one row per epoch."""

import difflib
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, final

from fitkit.errors import UnknownLogError, brief
from fitkit.loop.better import Mode, mode_of
from fitkit.loop.callback import Callback
from fitkit.loop.history_plot import charts_of, draw_history
from fitkit.loop.host_number import host_number
from fitkit.loop.state import State

__all__ = ["History"]

_MAX_SHOWN = 20  # names


@final
class History(Callback):
    """Keep the host values of every epoch; always attached, returned by `fit`.

    Reads:  state.logs.
    Writes: nothing.
    Logs:   nothing.
    Syncs:  once per epoch for each tensor that somebody has put into `state.logs`; else never.
    Raises: TypeError if something else than a real number is logged, or under something else than
        a name; OverflowError for an int that no float can hold; UnknownLogError, a KeyError, for a
        name that no epoch has logged.

    Attributes:
        rows: One dict per epoch, oldest first: "epoch" (0-based), "num_updates" (so far), and
            everything in `state.logs`. A pass that was stopped half-way gives a row, too. The row
            is there at EPOCH_END; what listeners of EPOCH_END log themselves joins it at SAVE.

    Example:
        ```python
        import torch
        from fitkit import FitLoop, TensorLoader, supervised

        model = torch.nn.Linear(4, 1)
        loop = FitLoop(model, TensorLoader(torch.randn(64, 4), torch.randn(64, 1)))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        loop.attach(supervised(loss=torch.nn.MSELoss(), optimizer=optimizer))
        history = loop.fit(epochs=2)
        assert [row["epoch"] for row in history.rows] == [0, 1]
        assert len(history["loss"]) == 2
        history.save_plot("loss.png")  # needs matplotlib: pip install "fitkit[plots]"
        ```
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self._has_row = False  # of the current epoch

    def __getitem__(self, name: str) -> list[float]:
        """Return the values of one log, by epoch; epochs that did not log it are left out.

        Raises:
            UnknownLogError: If none did.
        """
        values = [row[name] for row in self.rows if name in row]
        if not values:
            raise self._unknown(name)
        return values

    def __contains__(self, name: str) -> bool:
        """Return whether any epoch logged `name`."""
        return any(name in row for row in self.rows)

    def __repr__(self) -> str:
        """Return how many rows there are, and what they log."""
        names = self.names
        if len(names) > _MAX_SHOWN:
            names = [*names[:_MAX_SHOWN], f"and {len(names) - _MAX_SHOWN} more"]
        return f"History({len(self)} rows: {', '.join(names) or 'empty'})"

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.rows)

    @property
    def names(self) -> list[str]:
        """Everything that was logged, in the order in which it came."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def best(self, name: str | None = None, *, mode: Mode | None = None) -> dict[str, float]:
        """Return the row of the epoch with the best value of one log, the earliest of equals.

        Args:
            name: By default the first of val_loss, another loss of validation, loss.
            mode: "min" or "max"; None for what the name tells.

        Raises:
            UnknownLogError: If no epoch has logged it.
            ConfigError: If the name does not tell which way is better.
        """
        name = self._deciding() if name is None else name
        sign = 1 if mode_of("History.best", name, mode) == "min" else -1
        if name not in self:
            raise self._unknown(name)
        rows = [row for row in self.rows if name in row]
        return min(rows, key=lambda row: _rank(sign * row[name]))

    def to_pandas(self) -> Any:
        """Return a `pandas.DataFrame` with a row per epoch and a column per log.

        Raises:
            ImportError: If pandas is not installed.
        """
        try:
            pandas: Any = import_module("pandas")
        except ImportError as error:
            raise ImportError(
                "History.to_pandas() needs pandas, which is not installed\n"
                "Install it: pip install pandas. The rows themselves are in history.rows."
            ) from error
        return pandas.DataFrame(self.rows, columns=_counts_first(self.names))

    def plot(self, names: str | Sequence[str] | None = None, *, figure: Any = None) -> list[Any]:
        """Draw the loss and every metric, training against validation; return the axes.

        The marks on top are the ends of epochs; the star is the epoch that `best` returns.

        Args:
            names: What to draw, such as "loss" or ["loss", "speed/step_ms"]; each with its val_
                values. Default is the loss and every metric.
            figure: The matplotlib figure to draw into; default is a new one.

        Raises:
            UnknownLogError: If one of the names was never logged, or there is nothing to draw.
            ImportError: If matplotlib is not installed.
        """
        return self._drawn(names, figure)

    def save_plot(self, path: str | Path, names: str | Sequence[str] | None = None) -> None:
        """Write what `plot` draws to a file: png, svg, pdf, by the ending of its name."""
        first, *_ = self._drawn(names, None, shown=False)
        first.figure.savefig(path, dpi=110)

    def _drawn(
        self, names: str | Sequence[str] | None, figure: Any, *, shown: bool = True
    ) -> list[Any]:
        if names is None and not self.rows:
            raise self._unknown("loss")
        charts = charts_of(self.rows, [names] if isinstance(names, str) else names)
        for name, curves in charts.items():
            if not curves:
                raise self._unknown(name)
        if not charts:
            raise self._nothing_to_draw(names)
        deciding = self._deciding()
        best = (deciding, self.best(deciding)) if deciding in self else None
        return draw_history(self.rows, charts, best=best, figure=figure, shown=shown)

    def _deciding(self) -> str:
        """Return the name of the value by which an epoch is the best one."""
        losses = [n for n in self.names if n.startswith("val_") and n.endswith("_loss")]
        return next(iter(["val_loss"] if "val_loss" in losses else losses), "loss")

    def _unknown(self, name: object) -> UnknownLogError:
        if not self.rows:
            return UnknownLogError(
                f"the history has no {brief(name)}: it is empty, no epoch has ended\n"
                "Call loop.fit(epochs=1) first."
            )
        text = name if isinstance(name, str) else ""
        near = difflib.get_close_matches(text, self.names, n=1)
        hint = f"The nearest one is {brief(near[0])}" if near else "Ask for one of these"
        return UnknownLogError(
            f"the history has no {brief(name)}: no epoch has logged it\n"
            f"Logged are: {', '.join(map(brief, self.names[:_MAX_SHOWN]))}.\n"
            f"{hint}; `name in history` asks whether there is one."
        )

    def _nothing_to_draw(self, names: Sequence[str] | None) -> UnknownLogError:
        what = "neither a loss nor a metric was logged" if names is None else "no name was given"
        logged = ", ".join(map(brief, self.names[:_MAX_SHOWN])) or "nothing yet"
        return UnknownLogError(
            f"the history has nothing to draw: {what}\n"
            f'Name what to draw, as in history.plot("lr"). Logged are: {logged}.'
        )

    def on_epoch_begin(self, state: State) -> None:
        """Begin another row."""
        self._has_row = False

    def on_epoch_end(self, state: State) -> None:
        """Add the row of the epoch."""
        self._add(state)
        self._has_row = True

    def on_save(self, state: State) -> None:
        """Add to the row what was logged since: all other listeners of EPOCH_END come later."""
        if self._has_row:
            row = self.rows[-1]
            counts = {"epoch": row["epoch"], "num_updates": row["num_updates"]}
            row |= _numbers(state.logs) | counts

    def on_fit_end(self, state: State) -> None:
        """Add what a pass that was stopped half-way has logged."""
        if state.logs and state.num_updates > (self.rows[-1]["num_updates"] if self.rows else 0):
            self._add(state)

    def _add(self, state: State) -> None:
        counts = {"epoch": state.epoch, "num_updates": state.num_updates}
        self.rows.append(_numbers(state.logs) | counts)

    def state_dict(self) -> dict[str, Any]:
        """Return the rows."""
        return {"rows": [dict(row) for row in self.rows]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the rows."""
        self.rows = [dict(row) for row in state["rows"]]


def _numbers(logs: Mapping[str, Any]) -> dict[str, float]:
    """Return host values: a tensor would be kept on the device, with all it was computed from."""
    return {_name(name): host_number(name, value) for name, value in logs.items()}


def _name(name: object) -> str:
    if isinstance(name, str):
        return name
    raise TypeError(
        f"state.logs[{brief(name)}] has a {type(name).__name__} for a name, expected a string\n"
        'Name the value, for example state.logs["grad_norm"] = value.'
    )


def _rank(value: float) -> tuple[bool, float]:
    return (value != value, value)  # no number is worse than any


def _counts_first(names: list[str]) -> list[str]:
    return sorted(names, key=lambda name: name not in ("epoch", "num_updates"))
