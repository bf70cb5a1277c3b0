"""Gets the contestants of a case ready: those that matter first, while there is time."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from benchmarks.suite.cases import Case
from benchmarks.suite.contestants import CONTESTANTS
from benchmarks.suite.process import Settings, Worker
from benchmarks.suite.words import NO_TIME

Row = dict[str, Any]
FIRST = ("hand", "fitkit", "record", "floor")
READY_SHARE = 0.7
"""Of the time of a case may go by until all are ready; the rest is for the rounds."""


class OutOfTimeError(Exception):
    """The time of the whole run is over."""


@dataclass(frozen=True)
class Until:
    """Moments on the clock of `time.monotonic`.

    Attributes:
        share: When the time of this case is over: no round is begun that would end later, but for
            the first few.
        deadline: When the time of the whole run is over: no epoch is begun.
    """

    share: float = math.inf
    deadline: float = math.inf

    @property
    def is_over(self) -> bool:
        """Whether the time of the whole run is over."""
        return time.monotonic() >= self.deadline

    def part(self, share: float) -> "Until":
        """The same with `share` of the time from now until its own."""
        now = time.monotonic()
        return Until(min(self.deadline, now + share * (self.share - now)), self.deadline)


UNLIMITED = Until()


def get_ready(
    workers: list[Worker],
    case: Case,
    names: Sequence[str],
    settings: Settings,
    scratch: Path,
    until: Until,
    show: Callable[[str], None],
) -> dict[str, Row]:
    """Start all, a few at a time, and let each train its first epoch.

    Those for which there is no time do not take part; their rows are returned.
    """
    waiting, busy = in_order_of_start(names, settings.at_once), dict[Connection, Worker]()
    end, late = until.part(READY_SHARE).share, dict[str, Row]()
    while waiting or busy:
        while waiting and len(busy) < settings.at_once:
            worker = Worker(waiting.pop(0), case, settings, scratch)
            workers.append(worker)
            busy[worker.pipe] = worker
        names_now = ", ".join(worker.name for worker in busy.values())
        show(f"ready {len(workers) - len(busy)} of {len(names)}, now {names_now}")
        ends = {pipe: min(end, w.started + settings.ready_s) for pipe, w in busy.items()}
        if until.is_over:
            raise OutOfTimeError
        now = time.monotonic()
        answered = wait(list(busy), max(0.0, min([*ends.values(), until.deadline]) - now))
        now = time.monotonic()
        for pipe in [pipe for pipe in busy if pipe in answered or ends[pipe] <= now]:
            worker = busy.pop(pipe)
            if pipe in answered:
                receive_first(worker)
            else:
                give_up(worker, now - worker.started, settings)
        if now >= end and waiting:
            reason = f"{NO_TIME}: the others took {READY_SHARE:.0%} of that of the case"
            late = {name: {"left_out": reason} for name in waiting}
            waiting = []
    return late


def in_order_of_start(names: Sequence[str], at_once: int) -> list[str]:
    """What a comparison needs first; what compiles at the end, but for one beside the others.

    So those that matter are ready if there should only be time for a few. The one that compiles
    begins at once, unless the others would have to wait for it.
    """
    compile_ = [name for name in names if is_compiled(name)]
    compile_.sort(key=lambda name: CONTESTANTS[name].family != "record")
    others = [name for name in names if name not in compile_]
    first = [name for name in others if family(name) in FIRST]
    rest = [name for name in others if name not in first]
    beside = [*compile_[:1], *first] if at_once > 1 else [*first, *compile_[:1]]
    return [*beside, *rest, *compile_[1:]]


def family(name: str) -> str:
    return CONTESTANTS[name].family if name in CONTESTANTS else ""


def is_compiled(name: str) -> bool:
    return name in CONTESTANTS and CONTESTANTS[name].compiles


def receive_first(worker: Worker) -> None:
    """Take the message of the first epoch."""
    message = worker.receive(0)
    if worker.alive:
        worker.row |= {key: message[key] for key in ("since_begin_s", "steps")}


def give_up(worker: Worker, seconds: float, settings: Settings) -> None:
    """End one that is not ready in time: by what it may take, or by what there is left."""
    reason = f"not through its first epoch within {seconds:.0f} s"
    if seconds >= settings.ready_s:
        worker.row["error"] = reason
    else:
        worker.row["left_out"] = f"{NO_TIME}: {reason}"
    worker.end()
