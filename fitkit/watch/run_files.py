"""The event files of a run, one folder per curve family; a failing disk never stops training."""

import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

from fitkit.watch.event_file import EventFile

__all__ = ["RunFiles", "SafeNames"]


class SafeNames:
    """Names that can be folders and tags; different names stay different.

    Args:
        allowed: Characters a name may have besides letters, digits and underscores.
    """

    def __init__(self, allowed: str) -> None:
        self._unsafe = re.compile(rf"[^\w{re.escape(allowed)}]")
        self._safe: dict[str, str] = {}

    def __getitem__(self, name: str) -> str:
        """Return `name` with an underscore for every character that makes trouble."""
        if name not in self._safe:
            parts = self._unsafe.sub("_", name).split("/")
            base = safe = "/".join(part.strip(".") or "_" for part in parts if part) or "_"
            number = 2
            while safe in self._safe.values():
                safe, number = f"{base}_{number}", number + 1
            self._safe[name] = safe
        return self._safe[name]


class RunFiles:
    """Opens a file per folder, at the latest when it is first written to.

    After the first error of the disk there is one warning, and nothing more is tried.

    Args:
        folder: Where the folders are made.
        hide_from: See `EventFile`.
    """

    def __init__(self, folder: Path, *, hide_from: int | None = None) -> None:
        self._folder = folder
        self._hide_from = hide_from
        self._files: dict[str, EventFile] = {}
        self._folders, self._tags = SafeNames(".-"), SafeNames("./-")
        self._failed = False

    def open(self, run: str) -> None:
        """Make the file of a run now: a bad folder is known before there is anything to write."""
        self._try(lambda: self._file(run))

    def add(self, run: str, x: int, wall_s: float, values: Mapping[str, float]) -> None:
        """Write one point of several curves; see `EventFile.add`."""
        tagged = {self._tags[name]: value for name, value in values.items()}
        self._try(lambda: self._file(run).add(x, wall_s, tagged))

    def add_image(
        self,
        run: str,
        x: int,
        wall_s: float,
        tag: str,
        png: bytes,
        size: tuple[int, int, int],
    ) -> None:
        """Write a picture; see `EventFile.add_image`."""
        self._try(lambda: self._file(run).add_image(x, wall_s, self._tags[tag], png, size))

    def flush(self) -> None:
        """Hand everything to the operating system."""
        for file in self._files.values():
            self._try(file.flush)

    def close(self) -> None:
        """Flush and close."""
        for file in self._files.values():
            self._try(file.close)

    def _file(self, run: str) -> EventFile:
        if run not in self._files:
            folder = self._folder / self._folders[run]
            self._files[run] = EventFile(folder, hide_from=self._hide_from)
        return self._files[run]

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
                f"TensorBoard cannot write to {self._folder}: {error}\n"
                "Training goes on, without curves from here on.",
                stacklevel=2,
            )
