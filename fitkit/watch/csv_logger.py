"""The history as a table in a file."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import final

from fitkit.watch.row_file import RowFormat
from fitkit.watch.row_logger import RowLogger

__all__ = ["CSVLogger"]

_FORMULA = "=+-@'"  # what a spreadsheet would compute, and what marks text as text


class _CSV:
    def head(self, names: Sequence[str]) -> str:
        return _line(map(_cell, names))

    def line(self, row: Mapping[str, float], names: Sequence[str]) -> str:
        return _line(repr(row[name]) if name in row else "" for name in names)


@final
class CSVLogger(RowLogger):
    """Write a line of logs per epoch to a CSV file.

    The first line has the names: epoch, num_updates, then the logs. A log that comes later gets a
    column of its own, empty in the lines above. A run that goes on continues the file; lines of
    epochs after its checkpoint are replaced. A new run that finds a file of another one keeps it,
    as log.1.csv.

    In names, control characters are written as escapes, as Python has them, and a `'` stands before
    those that a spreadsheet would take for a formula.

    Args:
        path: The file; default is log.csv in the loop's run_dir.

    Reads:  loop.history.
    Writes: the file, from the main process only.
    Logs:   nothing.
    Syncs:  never.
    Raises: nothing; a disk that fails is a warning, once, and no more is written then.

    Example:
        ```python
        import tempfile
        from pathlib import Path

        import torch
        from fitkit import CSVLogger, FitLoop, TensorLoader, supervised

        model = torch.nn.Linear(4, 1)
        data = TensorLoader(torch.randn(64, 4), torch.randn(64, 1))
        loop = FitLoop(model, data, run_dir=tempfile.mkdtemp())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        loop.attach(supervised(loss=torch.nn.MSELoss(), optimizer=optimizer), CSVLogger())
        loop.fit(epochs=2)
        lines = Path(loop.run_dir, "log.csv").read_text().splitlines()
        assert lines[0] == "epoch,num_updates,lr,loss" and len(lines) == 3
        ```
    """

    _ending = "csv"

    def _format(self) -> RowFormat:
        return _CSV()


def _line(cells: Iterable[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _cell(name: str) -> str:
    escaped = "".join(
        char if char.isprintable() and char != "\\" else ascii(char)[1:-1] for char in name
    )
    return f"'{escaped}" if escaped[:1] in _FORMULA and escaped else escaped
