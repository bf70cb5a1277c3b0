"""What the loggers share that write a line per epoch."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from fitkit.loop.callback import Callback
from fitkit.loop.history import History
from fitkit.loop.state import State
from fitkit.watch.row_file import RowFile, RowFormat

if TYPE_CHECKING:
    from fitkit.loop.fit_loop import FitLoop

__all__ = ["RowLogger"]


class RowLogger(Callback, ABC):
    """Lets a file follow the history of the loop."""

    _ending: ClassVar[str]

    @abstractmethod
    def _format(self) -> RowFormat:
        """Return how rows are written."""

    def __init__(self, path: str | Path | None = None) -> None:
        self._path = None if path is None else Path(path)
        self._history: History | None = None
        self._file: RowFile | None = None  # while fit is running, in the main process

    def attach(self, loop: "FitLoop") -> None:
        """Find the rows."""
        self._history = loop.history

    def on_fit_begin(self, state: State) -> None:
        """Write the rows of earlier calls, or of the run that goes on."""
        if state.is_main and self._history is not None:
            path = self._path or state.run_dir / f"log.{self._ending}"
            self._file = RowFile(path, self._format(), owner=type(self).__name__)
            self._file.begin(self._history.rows)

    def on_save(self, state: State) -> None:
        """Write the row of the epoch: nobody adds to it any more."""
        if not hasattr(state, "batch_index"):  # not in mid-pass
            self._follow()

    def on_close(self, state: State) -> None:
        """Write the row of an epoch that a stop has cut short."""
        self._follow()
        self._file = None

    def _follow(self) -> None:
        if self._file is not None and self._history is not None:
            self._file.follow(self._history.rows)
