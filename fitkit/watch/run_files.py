"""The event files of a run, one folder per curve family; a failing disk never stops training.

A run directory holds `train`, `val` (`val_<name>` with several loaders) and, with epochs on the
horizontal axis, `updates`: the curves. Its own event file holds what belongs to the whole run: the
graph, texts, hyper-parameters, the layout of charts. A file per folder is written by all callbacks
together, because TensorBoard reads the newest file of a folder and looks into older ones no more.

What another run has left there is moved to a folder `earlier_1`, which TensorBoard shows as a run:
it takes settings, graph and layout of the first file that has any.
"""

import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from weakref import WeakSet

import numpy as np

from fitkit.loop.state import State
from fitkit.watch.axis import Axis
from fitkit.watch.event_file import EventFile
from fitkit.watch.step_points import Points

__all__ = ["WHOLE_RUN", "Charts", "RunFiles", "SafeNames"]

_OURS = re.compile(r"train|updates(_val.*)?|val(_.*)?|images")
_OPEN: "WeakSet[RunFiles]" = WeakSet()

WHOLE_RUN = "."
"""The folder of what belongs to the run itself."""

Charts = dict[str, dict[str, list[str]]]
"""By category and title: the tags of a chart, as regular expressions."""


class SafeNames:
    """Names that can be folders and tags; different names stay different.

    Args:
        allowed: Characters a name may have besides letters, digits and underscores.
        longest: How many characters are kept.
    """

    def __init__(self, allowed: str, *, longest: int) -> None:
        self._unsafe = re.compile(rf"[^\w{re.escape(allowed)}]")
        self._longest = longest
        self._safe: dict[str, str] = {}
        self._taken: set[str] = set()

    def __getitem__(self, name: str) -> str:
        """Return `name` with an underscore for every character that makes trouble."""
        if name not in self._safe:
            parts = self._unsafe.sub("_", name).split("/")
            base = "/".join(part.strip(".") or "_" for part in parts if part) or "_"
            base = safe = base[: self._longest].rstrip("/")
            number = 2
            while safe in self._taken:
                safe, number = f"{base}_{number}", number + 1
            self._safe[name] = safe
            self._taken.add(safe)
        return self._safe[name]


class RunFiles:
    """Opens a file per folder, at the latest when it is first written to.

    After the first error of the disk there is one warning, and nothing more is tried.

    Args:
        folder: The run directory.
        axis: What all callbacks draw over.
        state: How far the run is: what a crashed run has written beyond that is hidden.

    Attributes:
        folder, axis: The same.
        charts: What the callbacks want to see together, for the tab "custom scalars".
        is_new: Whether the run directory had no event file of its own.
        num_users: The callbacks that write; the last one closes.
    """

    def __init__(self, folder: Path, axis: Axis, state: State) -> None:
        self.folder = folder
        self.axis = axis
        self.charts: Charts = {}
        self.num_users = 0
        self._resumed = state.num_updates > 0
        self._from_update = axis.of_update(state) + 1
        self._from_epoch = state.epoch if axis.kind == "epoch" else self._from_update
        self._files: dict[str, EventFile] = {}
        self._folders = SafeNames(".-", longest=60)
        self._tags = SafeNames("./-", longest=200)
        self._failed = False
        if not self._resumed:
            self._try(self._move_aside)
        self.is_new = not any(folder.glob("events.out.tfevents.*")) if folder.is_dir() else True
        _OPEN.add(self)

    def tag(self, name: str) -> str:
        """Return what TensorBoard calls the curve `name`."""
        return self._tags[name]

    def open(self, run: str) -> None:
        """Make the file of a run now: a bad folder is known before there is anything to write."""
        self._try(lambda: self._file(run))

    def add(self, run: str, x: int, wall_s: float, values: Mapping[str, float]) -> None:
        """Write one point of several curves."""
        if values:
            table = np.array([tuple(values.values())], np.float64)
            self.add_points(run, Points(tuple(values), [x], [wall_s], table))

    def add_points(self, run: str, points: Points, *, prefix: str = "") -> None:
        """Write points of several curves, `prefix` in front of their names."""
        tags = tuple([self.tag(prefix + name) for name in points.names])
        self._try(lambda: self._file(run).add(points, tags))

    def add_value(self, run: str, x: int, wall_s: float, tag: str, **fields: Any) -> None:
        """Write anything else; see `EventFile.add_value`."""
        safe = self.tag(tag)
        self._try(lambda: self._file(run).add_value(x, wall_s, tag=safe, **fields))

    def add_graph(self, wall_s: float, graph: bytes) -> None:
        """Write the graph of the model; see `EventFile.add_graph`."""
        self._try(lambda: self._file(WHOLE_RUN).add_graph(wall_s, graph))

    def flush(self) -> None:
        """Hand everything to the operating system."""
        for file in self._files.values():
            self._try(file.flush)

    def leave(self) -> None:
        """Give the files up; the last one who does closes them."""
        self.num_users -= 1
        if self.num_users <= 0:
            _OPEN.discard(self)
            for file in self._files.values():
                self._try(file.close)

    def _file(self, run: str) -> EventFile:
        if run not in self._files:
            folder = self.folder if run == WHOLE_RUN else self.folder / self._folders[run]
            file = self._files[run] = EventFile(folder)
            # TensorBoard takes the first such mark of a folder for its beginning, hiding nothing.
            start = self._from_update if run.startswith("updates") else self._from_epoch
            file.hide_from(start if self._resumed else 0)
        return self._files[run]

    def _move_aside(self) -> None:
        """Move the files of an earlier run out of the way; not those that are being written."""
        folders = [path for path in self.folder.glob("*") if _OURS.fullmatch(path.name)]
        found = [f for at in (self.folder, *folders) for f in at.glob("events.out.tfevents.*")]
        if not found or any(other.folder == self.folder for other in _OPEN):
            return
        number = 1
        while (aside := self.folder / f"earlier_{number}").exists():
            number += 1
        for file in found:
            target = aside / file.relative_to(self.folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            file.rename(target)

    def _try(self, action: Callable[[], object]) -> None:
        if self._failed:
            return
        try:
            action()
        except OSError as error:
            self._failed = True
            for file in self._files.values():
                file.abandon()
            warnings.warn(
                f"TensorBoard cannot write to {self.folder}: {error}\n"
                "Training goes on, without curves from here on.",
                stacklevel=2,
            )
