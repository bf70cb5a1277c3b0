"""The history as JSON lines."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import final

from fitkit.watch.row_file import RowFormat
from fitkit.watch.row_logger import RowLogger

__all__ = ["JSONLLogger"]


class _JSONL:
    def head(self, names: Sequence[str]) -> str:
        return ""

    def line(self, row: Mapping[str, float], names: Sequence[str]) -> str:
        values = {name: _value(row[name]) for name in names if name in row}
        return json.dumps(values, allow_nan=False) + "\n"


@final
class JSONLLogger(RowLogger):
    """Write a JSON object with the logs of each epoch, one per line.

    Each line has epoch and num_updates first, and what the epoch has logged. JSON has no NaN and no
    infinity: they are the strings "NaN", "Infinity", "-Infinity", which `float()` reads. A crash
    tears the last line at most; a run that goes on continues the file, without that line, and
    lines of epochs after its checkpoint are replaced. A new run that finds a file of another one
    keeps it, as log.1.jsonl.

    Args:
        path: The file; default is log.jsonl in the loop's run_dir.

    Reads:  loop.history.
    Writes: the file, from the main process only; ASCII, so that no name can hide a line break.
    Logs:   nothing.
    Syncs:  never.
    Raises: nothing; a disk that fails is a warning, once, and no more is written then.

    Example:
        ```python
        import json
        import tempfile
        from pathlib import Path

        import torch
        from fitkit import FitLoop, JSONLLogger, TensorLoader, supervised

        model = torch.nn.Linear(4, 1)
        data = TensorLoader(torch.randn(64, 4), torch.randn(64, 1))
        loop = FitLoop(model, data, run_dir=tempfile.mkdtemp())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        loop.attach(supervised(loss=torch.nn.MSELoss(), optimizer=optimizer), JSONLLogger())
        loop.fit(epochs=2)
        lines = Path(loop.run_dir, "log.jsonl").read_text().splitlines()
        assert [json.loads(line)["epoch"] for line in lines] == [0, 1]
        ```
    """

    _ending = "jsonl"

    def _format(self) -> RowFormat:
        return _JSONL()


def _value(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
