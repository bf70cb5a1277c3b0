"""Progress: one line per case, which shows what is going on where that can be overwritten."""

import time
from typing import TextIO


class Screen:
    """Writes the lines of cases.

    Args:
        file: Where to; on a terminal the line of the current case moves.
    """

    def __init__(self, file: TextIO) -> None:
        self.file, self.moves = file, file.isatty()
        self.title, self.begun = "", time.monotonic()

    def begin(self, title: str) -> None:
        """Start the line of a case."""
        self.title, self.begun = title, time.monotonic()
        self.say("")

    def say(self, text: str) -> None:
        """Tell what is going on now."""
        if self.moves:
            self.file.write(f"\r\033[K{self.title}: {text}"[:120])
            self.file.flush()

    def end(self, text: str) -> None:
        """Finish the line."""
        line = f"{self.title}: {text} ({time.monotonic() - self.begun:.0f} s)"
        self.file.write(("\r\033[K" if self.moves else "") + line + "\n")
        self.file.flush()
