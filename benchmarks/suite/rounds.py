"""Runs the contestants of one case: all get ready, then they take turns."""

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from benchmarks.suite.cases import Case
from benchmarks.suite.process import Settings, Worker, finish, summary

Row = dict[str, Any]
GRACE_S = 10.0


class OutOfTimeError(Exception):
    """The time of the whole run is over."""


def run_case(
    case: Case,
    names: Sequence[str],
    settings: Settings,
    *,
    deadline: float = float("inf"),
    show: Callable[[str], None] = lambda line: None,
) -> dict[str, Row]:
    """Measure the contestants on a case.

    Args:
        case: What is trained.
        names: The contestants.
        settings: How to measure.
        deadline: On the clock of `time.monotonic`.
        show: Told what is going on.

    Returns:
        Per contestant the times of every round in us per step, or its error; losses by number of
        steps; the time to its first step; memory; what the probes found.

    Raises:
        OutOfTimeError: At the deadline, if no round was begun.
    """
    workers: list[Worker] = []
    with scratch_folder() as scratch:
        try:
            get_ready(workers, case, names, settings, scratch, deadline, show)
            take_turns(workers, settings, deadline, show)
            for name in settings.probes:  # afterwards: what a profiler attaches stays
                for worker in [w for w in workers if w.alive]:
                    seconds = patience(settings, deadline)
                    worker.row |= worker.order(name, seconds).get("probe", {})
            if not any(worker.wall for worker in workers) and time.monotonic() > deadline:
                raise OutOfTimeError
            for worker in [w for w in workers if w.alive]:
                finish(worker)
        finally:
            for worker in [w for w in workers if w.alive]:
                worker.end()
    return {worker.name: summary(worker) for worker in workers}


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="benchmarks-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def get_ready(
    workers: list[Worker],
    case: Case,
    names: Sequence[str],
    settings: Settings,
    scratch: Path,
    deadline: float,
    show: Callable[[str], None],
) -> None:
    """Start all, a few at a time, and let each train its first epoch."""
    waiting, busy = list(names), dict[Connection, Worker]()
    while waiting or busy:
        while waiting and len(busy) < settings.at_once:
            worker = Worker(waiting.pop(0), case, settings, scratch)
            workers.append(worker)
            busy[worker.pipe] = worker
        names_now = ", ".join(worker.name for worker in busy.values())
        show(f"ready {len(workers) - len(busy)} of {len(names)}, now {names_now}")
        ends = [worker.started + settings.ready_s for worker in busy.values()]
        now = time.monotonic()
        if now > deadline:
            raise OutOfTimeError
        answered = wait(list(busy), max(0.0, min([*ends, deadline]) - now))
        late = [w for w in busy.values() if w.started + settings.ready_s <= time.monotonic()]
        for worker in [w for w in busy.values() if w.pipe in answered or w in late]:
            del busy[worker.pipe]
            message = worker.receive(0)
            if worker.pipe not in answered:
                worker.row["error"] = f"not through its first epoch within {settings.ready_s:.0f} s"
            if worker.alive:
                worker.row |= {key: message[key] for key in ("since_begin_s", "steps")}


def take_turns(
    workers: list[Worker], settings: Settings, deadline: float, show: Callable[[str], None]
) -> None:
    """Let everybody train one epoch per round; the order turns around.

    At the deadline the rounds so far are what there is.
    """
    num_rounds = settings.warmup + settings.rounds
    for index in range(num_rounds):
        show(f"round {index + 1} of {num_rounds}")
        alive = [worker for worker in workers if worker.alive]
        for worker in alive if index % 2 == 0 else reversed(alive):
            if time.monotonic() > deadline:
                return
            message = worker.order("go", patience(settings, deadline))
            if index >= settings.warmup and worker.alive:
                worker.wall.append(message["wall_s"])
                worker.cpu.append(message["cpu_s"])
                worker.passes.append(message["pass_s"])


def patience(settings: Settings, deadline: float) -> float:
    """Seconds to wait for an answer: an epoch that was begun may end."""
    return min(settings.ready_s, max(GRACE_S, deadline - time.monotonic()))
