"""What the callbacks for TensorBoard have in common: they write the same files."""

from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from fitkit.errors import ConfigError, brief
from fitkit.loop.callback import Callback
from fitkit.loop.state import State
from fitkit.watch.axis import Axis
from fitkit.watch.event_file import load_tensorboard
from fitkit.watch.run_files import RunFiles

if TYPE_CHECKING:
    from fitkit.loop.fit_loop import FitLoop

__all__ = ["Board"]

# Not in the callbacks themselves: Record follows what a callback of the step holds, and a step that
# could reach an open file cannot be recorded.
_FILES: "WeakKeyDictionary[Board, RunFiles]" = WeakKeyDictionary()


class Board(Callback):
    """Base of the callbacks that write event files. Those of one folder share their writer.

    Args:
        log_dir: Where the folders are made; None is where the `TensorBoard` of the loop writes, or
            its run_dir.
        axis: What all are drawn over; only a `TensorBoard` says.

    """

    only_watches = True

    def __init__(self, log_dir: str | Path | None, *, axis: Axis | None = None) -> None:
        if log_dir is not None and not isinstance(log_dir, str | Path):
            raise ConfigError(
                f"log_dir={brief(log_dir)} is a {type(log_dir).__name__}, expected a path\n"
                f'Write {type(self).__name__}(log_dir="runs/first"), or leave it out.'
            )
        self.log_dir = None if log_dir is None else Path(log_dir)
        self.axis = axis
        self._loop: FitLoop | None = None

    @property
    def files(self) -> RunFiles | None:
        """The writer, while `fit` is running in the main process."""
        return _FILES.get(self)

    def attach(self, loop: "FitLoop") -> None:
        """Keep the loop, to find the others; import TensorBoard now, so that it is no surprise."""
        self._loop = loop
        if loop.is_main:
            load_tensorboard()

    def on_fit_begin(self, state: State) -> None:
        """Open the files, or join those who have; evaluate and predict write nothing."""
        if not state.is_main or self._loop is None:
            return
        boards = [c for c in self._loop.callbacks if isinstance(c, Board)]
        leaders = [board for board in boards if board.axis is not None]
        chosen = self if self.axis is not None or self.log_dir else next(iter(leaders), self)
        folder = chosen.folder(state)
        in_use = [board.files for board in boards if board.files is not None]
        files = next((files for files in in_use if files.folder == folder), None)
        if files is None:
            axes = [each.axis for each in leaders if each.axis and each.folder(state) == folder]
            _check_one_kind(axes, folder)
            axis = next(iter(axes), Axis("step"))
            axis.start()
            files = RunFiles(folder, axis, state)
        files.num_users += 1
        _FILES[self] = files

    def folder(self, state: State) -> Path:
        """Return where this callback writes if it is alone; an absolute path."""
        return (self.log_dir or state.run_dir).resolve()

    @property
    def awaits_validation(self) -> bool:
        """Whether there are loaders to validate on, and their results were not logged yet."""
        if self._loop is None:
            return False
        names = self._loop.state.logs
        return bool(self._loop.val_loaders) and not any(name.startswith("val_") for name in names)

    def on_close(self, state: State) -> None:
        """Close the files, also after an error."""
        files = _FILES.pop(self, None)
        if files is not None:
            files.leave()
            if not files.num_users:
                files.axis.stop()


def _check_one_kind(axes: list[Axis], folder: Path) -> None:
    kinds = list(dict.fromkeys(axis.kind for axis in axes))
    if len(kinds) > 1:
        raise ConfigError(
            f'two TensorBoards write to one folder, over "{kinds[0]}" and "{kinds[1]}"\n'
            f"The folder is {folder}.\n"
            "Give one of them a log_dir of its own."
        )
