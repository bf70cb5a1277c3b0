"""The file format of TensorBoard, written at once: no thread that can die or hang."""

import contextlib
import itertools
import os
import socket
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from fitkit.watch.records import PointFormat, framed
from fitkit.watch.step_points import Points

__all__ = ["EventFile", "load_tensorboard"]

_PROTOS = ("event_pb2", "summary_pb2", "graph_pb2")
_MAX_PENDING = 4 << 20  # bytes
_serial = itertools.count()
_CLOSED: set[Path] = set()  # what this process has written to its end


def load_tensorboard() -> None:
    """Import what writes event files; takes about a second, and needs no TensorFlow."""
    for name in _PROTOS:
        import_module(f"tensorboard.compat.proto.{name}")


class EventFile:
    """The event file of a folder, which is created. Two writers never share a file.

    The newest one is continued if this process has written and closed it: many calls of `fit` leave
    one file. Otherwise there is a new one.

    Events are collected and written by `flush`, or where they have become 4 MiB.

    Args:
        folder: TensorBoard shows each folder as one run.

    Raises:
        OSError: Whatever goes wrong on disk, here and in all methods.
    """

    def __init__(self, folder: Path) -> None:
        self._proto: Any = import_module("tensorboard.compat.proto.event_pb2")
        self._summary: Any = import_module("tensorboard.compat.proto.summary_pb2").Summary
        folder.mkdir(parents=True, exist_ok=True)
        newest = max(folder.glob("events.out.tfevents.*"), default=folder)
        goes_on = newest in _CLOSED and newest.name.endswith(f".{os.getpid()}")  # not after a fork
        # TensorBoard reads the files of a folder in the order of their names.
        name = f"events.out.tfevents.{time.time():.6f}.{next(_serial):06d}"
        self.path = newest if goes_on else folder / f"{name}.{socket.gethostname()}.{os.getpid()}"
        self._events: list[bytes] = []  # not framed yet: that goes faster for many at once
        self._pending: list[bytes] = []
        self._num_pending = 0  # bytes of both
        self._formats: dict[tuple[str, ...], PointFormat] = {}
        self._file = self.path.open("ab" if goes_on else "xb")
        if goes_on:
            _CLOSED.discard(self.path)
        else:
            self._write(wall_time=time.time(), file_version="brain.Event:2")

    def hide_from(self, x: int) -> None:
        """Hide all points of this folder at `x` or later that were written so far.

        A resumed run then does not double what a crashed one has written.
        """
        start = self._proto.SessionLog(status=self._proto.SessionLog.START)
        self._write(wall_time=time.time(), step=x, session_log=start)

    def add(self, points: Points, tags: tuple[str, ...]) -> None:
        """Write points of several curves.

        Args:
            points: What is written.
            tags: What the curves are called here.
        """
        if tags not in self._formats:
            if len(self._formats) > 1000:  # names that are never the same again
                self._formats.clear()
            self._formats[tags] = PointFormat(tags)
        self._frame()
        self._append(self._pending, self._formats[tags].framed(*points[1:]))

    def add_value(self, x: int, wall_s: float, **fields: Any) -> None:
        """Write anything else: the fields of a `Summary.Value`, see summaries.py."""
        value = self._summary.Value(**fields)
        self._write(step=x, wall_time=wall_s, summary=self._summary(value=[value]))

    def add_graph(self, wall_s: float, graph: bytes) -> None:
        """Write the graph of a model, a serialized `GraphDef`."""
        self._write(wall_time=wall_s, graph_def=graph)

    def flush(self) -> None:
        """Hand everything to the operating system, so that a killed process loses nothing."""
        self._frame()
        if self._pending:
            pending, self._pending, self._num_pending = self._pending, [], 0
            self._file.write(b"".join(pending))
            self._file.flush()
        if not self.path.exists():
            raise FileNotFoundError(f"{self.path} was removed while it was written")

    def close(self) -> None:
        """Flush and close."""
        try:
            self.flush()
        finally:
            self._file.close()
        _CLOSED.add(self.path)

    def abandon(self) -> None:
        """Close after an error, whatever becomes of the rest."""
        with contextlib.suppress(OSError):
            self._file.close()

    def _write(self, **fields: Any) -> None:
        self._append(self._events, self._proto.Event(**fields).SerializeToString())

    def _frame(self) -> None:
        if self._events:
            self._pending.append(framed(self._events))
            self._events = []

    def _append(self, pending: list[bytes], event: bytes) -> None:
        pending.append(event)
        self._num_pending += len(event)
        if self._num_pending > _MAX_PENDING:
            self.flush()
