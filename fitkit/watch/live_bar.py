"""The moving bars of a terminal or notebook, drawn by tqdm."""

import contextlib
import threading
import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any

from fitkit.watch.console import Console

__all__ = ["LiveBar", "bar_class", "run_bar"]

_FORMAT = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} {rate_noinv_fmt}{postfix}"
_RUN_FORMAT = "{desc} {percentage:3.0f}%|{bar}| {elapsed}, {remaining} to go"


def bar_class(console: Console) -> Any:
    """Return the tqdm class that can draw on `console`, or None where only lines will do."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tqdm warns of its own autonotebook
        notebook = import_module("tqdm.autonotebook").tqdm
    plain = import_module("tqdm.std").tqdm
    if notebook is plain and not console.is_terminal:
        return None
    # No thread that outlives the run; and a lock of its own, because a bar that fails to draw keeps
    # the lock, which all bars of the process would share.
    return type("Bar", (notebook,), {"monitor_interval": 0, "_lock": threading.RLock()})


class LiveBar:
    """One bar; it vanishes when it is closed. A terminal that fails is given up.

    Args:
        kind: What `bar_class` returned.
        console: Where it is drawn.
        title: The text before the bar.
        total: How many steps there are, if that is known.
        options: What tqdm takes besides.
    """

    def __init__(
        self, kind: Any, console: Console, title: str, total: float | None, **options: Any
    ) -> None:
        given: dict[str, Any] = {"unit": " batches", "bar_format": _FORMAT if total else None}
        self._bar: Any = kind(
            total=total,
            desc=title,
            file=console.stream,
            leave=False,
            dynamic_ncols=True,
            mininterval=0,
            miniters=0,
            delay=1e-9,  # the constructor draws nothing, so it cannot fail
            **(given | options),
        )
        self._guard(self._bar.refresh)

    def show(self, done: float, text: str = "") -> None:
        """Draw it with `done` steps done."""
        self._bar.set_postfix_str(text, refresh=False)
        self._guard(lambda: self._bar.update(done - self._bar.n))

    def leave_out(self, seconds: float) -> None:
        """Do not count these seconds, which were somebody else's, for the rate."""
        self._bar.start_t += seconds
        self._bar.last_print_t += seconds

    def close(self) -> None:
        """Take it off the screen."""
        self._guard(self._bar.close)

    def _guard(self, draw: Callable[[], object]) -> None:
        with contextlib.suppress(OSError, ValueError):
            draw()


def run_bar(kind: Any, console: Console, done: float) -> LiveBar:
    """Return a bar over the whole run, counted from 0 to 1; `done` is where it begins.

    What is to go is told by the mean speed so far, validations and all: a smoothed one would jump.
    """
    options = {"bar_format": _RUN_FORMAT, "smoothing": 0, "initial": done}
    return LiveBar(kind, console, "run", 1.0, **options)
