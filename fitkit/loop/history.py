"""What was logged, one row per epoch."""

from collections.abc import Mapping
from typing import Any, final

from torch import Tensor

from fitkit.loop.callback import Callback
from fitkit.loop.state import State

__all__ = ["History"]


@final
class History(Callback):
    """Keep the host values of every epoch; always attached, returned by `fit`.

    Reads:  state.logs.
    Writes: nothing.
    Logs:   nothing.
    Syncs:  once per epoch for each tensor that somebody has put into `state.logs`; else never.
    Raises: TypeError for a tensor of another shape than ().

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
        ```
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self._has_row = False  # of the current epoch

    def __getitem__(self, name: str) -> list[float]:
        """Return the values of one log, by epoch; epochs that did not log it are left out."""
        return [row[name] for row in self.rows if name in row]

    def __contains__(self, name: str) -> bool:
        """Return whether any epoch logged `name`."""
        return any(name in row for row in self.rows)

    def __repr__(self) -> str:
        """Return how many rows there are, and what they log."""
        names = dict.fromkeys(name for row in self.rows for name in row)
        return f"History({len(self)} rows: {', '.join(names) or 'empty'})"

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.rows)

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
    return {name: _number(name, value) for name, value in logs.items()}


def _number(name: str, value: Any) -> float:
    if not isinstance(value, Tensor):
        return value
    if value.dim() != 0:
        raise TypeError(
            f"state.logs['{name}'] is a tensor of shape {tuple(value.shape)}, expected a number\n"
            f'Reduce it; state.log("{name}", value) logs a scalar without waiting for the device.'
        )
    return value.item()  # sync: once per epoch, somebody has put a tensor where numbers belong
