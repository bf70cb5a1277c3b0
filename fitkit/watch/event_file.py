"""The file format of TensorBoard, written at once: no thread that can die or hang."""

import contextlib
import itertools
import os
import socket
import time
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

__all__ = ["EventFile", "load_tensorboard"]

_serial = itertools.count()


def load_tensorboard() -> None:
    """Import what writes event files; takes about a second, and needs no TensorFlow."""
    for name in ("compat.proto.event_pb2", "summary.writer.record_writer"):
        import_module(f"tensorboard.{name}")


class EventFile:
    """One event file in a folder, which is created. Two writers never share a file.

    Args:
        folder: TensorBoard shows each folder as one run.
        hide_from: Points that earlier files of the folder have at this x or later are hidden, so
            that a resumed run does not double what a crashed one has written.

    Raises:
        OSError: Whatever goes wrong on disk, here and in all methods.
    """

    def __init__(self, folder: Path, *, hide_from: int | None = None) -> None:
        self._proto: Any = import_module("tensorboard.compat.proto.event_pb2")
        summaries: Any = import_module("tensorboard.compat.proto.summary_pb2")
        self._summary: Any = summaries.Summary
        records: Any = import_module("tensorboard.summary.writer.record_writer")
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}"
        self.path = folder / f"{name}.{next(_serial)}"
        self._records: Any = records.RecordWriter(self.path.open("xb"))
        self._write(wall_time=time.time(), file_version="brain.Event:2")
        if hide_from is not None:
            start = self._proto.SessionLog(status=self._proto.SessionLog.START)
            self._write(wall_time=time.time(), step=hide_from, session_log=start)

    def add(self, x: int, wall_s: float, values: Mapping[str, float]) -> None:
        """Write one point of several curves.

        Args:
            x: The position on the horizontal axis.
            wall_s: When it was measured, seconds since 1970.
            values: By tag.
        """
        points = [self._summary.Value(tag=tag, simple_value=v) for tag, v in values.items()]
        self._write(wall_time=wall_s, step=x, summary=self._summary(value=points))

    def add_image(
        self, x: int, wall_s: float, tag: str, png: bytes, size: tuple[int, int, int]
    ) -> None:
        """Write a picture.

        Args:
            x: The position on the horizontal axis.
            wall_s: When it was made, seconds since 1970.
            tag: Its name.
            png: The file.
            size: Height, width, number of color channels.
        """
        height, width, channels = size
        image = self._summary.Image(
            height=height, width=width, colorspace=channels, encoded_image_string=png
        )
        summary = self._summary(value=[self._summary.Value(tag=tag, image=image)])
        self._write(wall_time=wall_s, step=x, summary=summary)

    def flush(self) -> None:
        """Hand everything to the operating system, so that a killed process loses nothing."""
        self._records.flush()
        if not self.path.exists():
            raise FileNotFoundError(f"{self.path} was removed while it was written")

    def close(self) -> None:
        """Flush and close."""
        self._records.close()

    def abandon(self) -> None:
        """Close after an error, whatever becomes of the rest."""
        with contextlib.suppress(OSError):
            self._records.close()

    def _write(self, **fields: Any) -> None:
        self._records.write(self._proto.Event(**fields).SerializeToString())
