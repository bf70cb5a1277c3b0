"""A text file with a line per row of the history; a failing disk never stops training."""

import contextlib
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

__all__ = ["RowFile", "RowFormat"]

Row = Mapping[str, float]


class RowFormat(Protocol):
    """How rows become lines, each with its line break."""

    def head(self, names: Sequence[str]) -> str:
        """Return the first line for columns of these names, or nothing."""
        ...

    def line(self, row: Row, names: Sequence[str]) -> str:
        """Return the line of a row."""
        ...


class RowFile:
    """Holds what the history holds, whoever has written the file before.

    A line is added with one call of the operating system, so a crash tears at most the last one.
    Everything else (a run that goes on, a column that comes later, a file that somebody has
    changed) writes the file anew and puts it in place of the old one in one step.

    Args:
        path: The file; its folder is created.
        text: The format.
        owner: The class that writes, for the warning.
    """

    def __init__(self, path: Path, text: RowFormat, *, owner: str) -> None:
        self._path = path
        self._text = text
        self._owner = owner
        self._names: list[str] = []
        self._num_rows = self._size = 0
        self._failed = False

    def begin(self, rows: Sequence[Row]) -> None:
        """Write all rows; where there are none, keep the file of another run under another name."""

        def write() -> None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if not rows and self._path.exists() and self._path.stat().st_size:
                self._path.rename(_unused(self._path))
            self._rewrite(rows)

        self._try(write)

    def follow(self, rows: Sequence[Row]) -> None:
        """Add the rows that are new."""
        if len(rows) > self._num_rows:
            self._try(lambda: self._append(rows))

    def _append(self, rows: Sequence[Row]) -> None:
        new = rows[self._num_rows :]
        if not all(name in self._names for row in new for name in row):
            self._rewrite(rows)
            return
        data = _encoded("".join(self._text.line(row, self._names) for row in new))
        with self._path.open("ab", buffering=0) as file:
            untouched = os.fstat(file.fileno()).st_size == self._size
            if untouched and file.write(data) != len(data):
                with contextlib.suppress(OSError):
                    file.truncate(self._size)  # half a line is worse than none
                raise OSError("only a part of the line was written, the disk may be full")
        if not untouched:
            self._rewrite(rows)
            return
        self._num_rows, self._size = len(rows), self._size + len(data)

    def _rewrite(self, rows: Sequence[Row]) -> None:
        names = dict.fromkeys(["epoch", "num_updates"]) if rows else {}
        names |= dict.fromkeys(self._names) | dict.fromkeys(name for row in rows for name in row)
        lines = [self._text.head([*names]), *(self._text.line(row, [*names]) for row in rows)]
        data = _encoded("".join(lines if rows else ()))
        temporary = self._path.with_name(f"{self._path.name}.{os.getpid()}.tmp")
        try:
            temporary.write_bytes(data)
            temporary.replace(self._path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        self._names, self._num_rows, self._size = [*names], len(rows), len(data)

    def _try(self, action: Callable[[], object]) -> None:
        if self._failed:
            return
        try:
            action()
        except OSError as error:
            self._failed = True
            warnings.warn(
                f"{self._owner} cannot write {self._path}: {error}\n"
                "Training goes on, and the rows are in loop.history.",
                stacklevel=2,
            )


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def _unused(path: Path) -> Path:
    """Return a name beside `path` that is free: log.1.csv for log.csv."""
    number = 1
    while (free := path.with_name(f"{path.stem}.{number}{path.suffix}")).exists():
        number += 1
    return free
