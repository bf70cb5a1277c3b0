"""Runs the contestants of one case: all get ready, then they take turns."""

import contextlib
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from benchmarks.suite.bars import MIN_ROUNDS
from benchmarks.suite.cases import Case
from benchmarks.suite.checks import HAND
from benchmarks.suite.contestants import CONTESTANTS
from benchmarks.suite.process import Settings, Worker, finish, summary
from benchmarks.suite.words import NO_TIME

Row = dict[str, Any]
GRACE_S = 10.0
FIRST = ("hand", "fitkit", "record", "floor")
READY_SHARE = 0.75
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
        return time.monotonic() > self.deadline

    def part(self, share: float) -> "Until":
        """The same with `share` of the time from now until its own."""
        now = time.monotonic()
        return Until(min(self.deadline, now + share * (self.share - now)), self.deadline)


def run_case(
    case: Case,
    names: Sequence[str],
    settings: Settings,
    *,
    until: Until = Until(),
    show: Callable[[str], None] = lambda line: None,
) -> dict[str, Row]:
    """Measure the contestants on a case.

    Args:
        case: What is trained.
        names: The contestants.
        settings: How to measure.
        until: How long it may take.
        show: Told what is going on.

    Returns:
        Per contestant the times of every round in us per step, and beside them those of the
        baseline in the same rounds; or its error; losses by number of steps; the time to its first
        step; memory; what the probes found.

    Raises:
        OutOfTimeError: At the deadline, if no round was begun.
    """
    measured: dict[str, Row] = {}
    groups = groups_of(names, case.together)
    for index, group in enumerate(groups):
        share = until.part(1 / (len(groups) - index))
        try:
            measured = run_group(case, group, settings, share, show) | measured
        except OutOfTimeError:
            if not measured:
                raise
            missing = {name: {"left_out": NO_TIME} for name in group}
            measured = missing | measured
    return {name: measured[name] for name in names}


def groups_of(names: Sequence[str], together: int | None) -> list[list[str]]:
    """Who is alive at the same time: everybody, or so many, the baseline in every group.

    Who compiles comes last, and so has the time that the others leave.
    """
    if together is None or len(names) <= together:
        return [list(names)]
    baseline = [name for name in HAND.values() if name in names][:1]
    others = sorted((name for name in names if name not in baseline), key=is_compiled)
    size = together - len(baseline)
    return [[*baseline, *others[at : at + size]] for at in range(0, len(others), size)]


def run_group(
    case: Case,
    names: Sequence[str],
    settings: Settings,
    until: Until,
    show: Callable[[str], None],
) -> dict[str, Row]:
    """Measure those that are alive at the same time."""
    workers: list[Worker] = []
    with scratch_folder() as scratch:
        try:
            late = get_ready(workers, case, names, settings, scratch, until, show)
            workers.sort(key=lambda worker: names.index(worker.name))
            take_turns(workers, settings, until, show)
            for name in settings.probes:  # afterwards: what a profiler attaches stays
                for worker in [w for w in workers if w.alive and not until.is_over]:
                    seconds = patience(settings, until)
                    worker.row |= worker.order(name, seconds).get("probe", {})
            if until.is_over and not any(worker.wall for worker in workers):
                raise OutOfTimeError
            for worker in [w for w in workers if w.alive]:
                finish(worker)
        finally:
            for worker in [w for w in workers if w.alive]:
                worker.end()
    rows = {worker.name: summary(worker, settings) for worker in workers}
    baseline = next((rows[name] for name in HAND.values() if "us" in rows.get(name, {})), None)
    if baseline is not None:
        for row in [row for row in rows.values() if "us" in row]:
            row["baseline_us"] = baseline["us"]
    return rows | late


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
    until: Until,
    show: Callable[[str], None],
) -> dict[str, Row]:
    """Start all, a few at a time, and let each train its first epoch.

    Those for which there is no time do not take part; their rows are returned.
    """
    waiting, busy = in_order_of_start(names), dict[Connection, Worker]()
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


def in_order_of_start(names: Sequence[str]) -> list[str]:
    """What a comparison needs first; what compiles at the end, but for one beside the others.

    So those that matter are ready if there should only be time for a few.
    """
    compile_ = [name for name in names if is_compiled(name)]
    compile_.sort(key=lambda name: CONTESTANTS[name].family != "record")
    others = [name for name in names if name not in compile_]
    first = [name for name in others if family(name) in FIRST]
    rest = [name for name in others if name not in first]
    return [*first, *compile_[:1], *rest, *compile_[1:]]


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


def take_turns(
    workers: list[Worker], settings: Settings, until: Until, show: Callable[[str], None]
) -> None:
    """Let everybody train one epoch per round; the order turns around.

    When the time is over, the rounds so far are what there is.
    """
    num_rounds, took_s = settings.warmup + settings.rounds, 0.0
    for index in range(num_rounds):
        begin = time.monotonic()
        if index >= settings.warmup + MIN_ROUNDS and begin + took_s > until.share:
            return
        show(f"round {index + 1} of {num_rounds}")
        alive = [worker for worker in workers if worker.alive]
        for worker in alive if index % 2 == 0 else reversed(alive):
            if until.is_over:
                return
            message = worker.order("go", patience(settings, until))
            if index >= settings.warmup and worker.alive:
                worker.wall.append(message["wall_s"])
                worker.cpu.append(message["cpu_s"])
                worker.passes.append(message["pass_s"])
        took_s = time.monotonic() - begin


def patience(settings: Settings, until: Until) -> float:
    """Seconds to wait for an answer: an epoch that was begun may end."""
    return min(settings.ready_s, max(GRACE_S, until.deadline - time.monotonic()))
