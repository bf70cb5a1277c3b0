"""Runs the contestants of one case: all get ready, then they take turns."""

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.suite.bars import MIN_ROUNDS
from benchmarks.suite.cases import Case
from benchmarks.suite.checks import HAND
from benchmarks.suite.process import LATE, Settings, Worker, summary
from benchmarks.suite.ready import UNLIMITED, OutOfTimeError, Until, get_ready, is_compiled
from benchmarks.suite.words import NO_TIME

Row = dict[str, Any]
GRACE_S = 10.0


def run_case(
    case: Case,
    names: Sequence[str],
    settings: Settings,
    *,
    until: Until = UNLIMITED,
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
                    worker.row |= epoch(worker, name, settings, until).get("probe", {})
            if until.is_over and not any(worker.wall for worker in workers):
                raise OutOfTimeError
        finally:
            for worker in [w for w in workers if w.alive]:
                worker.end()
    rows = {worker.name: summary(worker, settings) for worker in workers}
    baseline = next((name for name in HAND.values() if "us" in rows.get(name, {})), None)
    if baseline is not None:
        for row in [row for row in rows.values() if "us" in row]:
            row |= {"baseline": baseline, "baseline_us": rows[baseline]["us"]}
    return rows | late


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="benchmarks-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


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
            message = epoch(worker, "go", settings, until)
            if index >= settings.warmup and worker.alive:
                worker.wall.append(message["wall_s"])
                worker.cpu.append(message["cpu_s"])
                worker.passes.append(message["pass_s"])
        took_s = time.monotonic() - begin


def epoch(worker: Worker, order: str, settings: Settings, until: Until) -> Row:
    """Let it train an epoch. One that was begun may end, even a little after the deadline.

    Who is at it for longer is ended, and keeps the rounds that it has.
    """
    left_s = until.deadline - time.monotonic()
    message = worker.order(order, min(settings.ready_s, max(GRACE_S, left_s)))
    if until.is_over and worker.row.get("error", "").startswith(LATE):
        del worker.row["error"]
    return message
