"""Text for people: lines that cannot fail, numbers and logs as text."""

import math
import os
import sys
from collections.abc import Mapping
from typing import Any, TextIO

from fitkit.watch.text_table import short

__all__ = ["Console", "listing", "number"]


class Console:
    """Write whole lines to a stream. A stream that fails is given up, training goes on.

    Args:
        file: Default is whatever `sys.stdout` is when a line is written.
    """

    def __init__(self, file: TextIO | None = None) -> None:
        self._file = file
        self._broken = False

    @property
    def stream(self) -> Any:
        """The stream; None where the process has no standard output."""
        return sys.stdout if self._file is None else self._file

    @property
    def is_terminal(self) -> bool:
        """Whether a line can be drawn over: a terminal that knows control characters."""
        try:
            return os.environ.get("TERM") != "dumb" and bool(self.stream.isatty())
        except (AttributeError, ValueError):  # no stream, or a closed one
            return False

    def line(self, text: str) -> None:
        """Write one line; what cannot be printed as it is becomes a question mark."""
        stream = self.stream
        if stream is None or self._broken:
            return
        encoding = getattr(stream, "encoding", None) or "utf-8"
        printable = "".join(char if char.isprintable() else "?" for char in text)
        printable = printable.encode(encoding, "replace").decode(encoding)
        try:
            _write(printable, stream)
            stream.flush()
        except (OSError, ValueError):  # a pipe nobody reads any more, a full disk, a closed file
            self._broken = True


def _write(text: str, stream: TextIO) -> None:
    tqdm: Any = sys.modules.get("tqdm.std")
    if tqdm is None:
        stream.write(text + "\n")
    else:
        tqdm.tqdm.write(text, file=stream)  # takes bars off the screen while it writes


def number(value: float) -> str:
    """Return `value` with four decimals; very small and very large ones in powers of ten."""
    plain = value == 0 or not math.isfinite(value) or 1e-3 <= abs(value) < 1e5
    return f"{value:.4f}" if plain else f"{value:.3e}"


def listing(logs: Mapping[str, float]) -> str:
    """Return logs as text: training, validation, learning rate.

    Names with a slash, such as speed/step_ms, are for plots and left out.
    """
    names = [name for name in logs if "/" not in name]
    names.sort(key=lambda name: (name == "lr", name.startswith("val_")))
    return "  ".join(f"{short(name)} {number(logs[name])}" for name in names)
