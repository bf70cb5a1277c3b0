"""Runs the contestants of one case: all get ready, then they take turns."""

import contextlib
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from benchmarks.suite.cases import Case
from benchmarks.suite.worker import work

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["keras", "benchmarks.suite.worker"])

Row = dict[str, Any]


class OutOfTimeError(Exception):
    """The time of the whole run is over."""


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Attributes:
        device: "cpu" or "cuda".
        threads: Threads of torch in every contestant.
        warmup: Rounds thrown away.
        rounds: Rounds measured.
        ready_s: How long a contestant may take to get through its first epoch.
        at_once: How many get ready at the same time; measured is one at a time.
        probes: Names of probes to run after the rounds.
    """

    device: str = "cpu"
    threads: int = 1
    warmup: int = 1
    rounds: int = 7
    ready_s: float = 300.0
    at_once: int = 1
    probes: tuple[str, ...] = ()


class Worker:
    """A contestant in its process, and the row it fills."""

    def __init__(self, name: str, case: Case, settings: Settings, scratch: Path) -> None:
        self.name, self.row, self.alive = name, Row(), True
        self.wall: list[float] = []
        self.cpu: list[float] = []
        self.losses: dict[int, float] = {}
        self.num_steps = 0
        self.started = time.monotonic()
        options = {
            "device": settings.device,
            "threads": settings.threads,
            # the first epoch builds, traces and compiles
            "before": 1 + len(settings.probes) + settings.warmup,
            "rounds": settings.rounds,
            "scratch": str(scratch / name),
        }
        self.pipe, other = CONTEXT.Pipe()
        self.process = CONTEXT.Process(
            target=work, args=(other, name, case.name, options), daemon=True
        )
        self.process.start()
        other.close()

    def receive(self, timeout: float) -> Row:
        """The next message; a failure ends the worker and stands in its row."""
        message: Row = {"error": f"no answer within {timeout:.0f} s"}
        if self.pipe.poll(max(0.0, timeout)):
            try:
                message = self.pipe.recv()
            except EOFError:
                self.process.join(5)
                message = {"error": f"its process died with exit code {self.process.exitcode}"}
        if "error" in message:
            self.row["error"] = message["error"]
            self.end()
        self.num_steps += message.get("steps", 0)
        if "loss" in message:
            self.losses[self.num_steps] = message["loss"]
        return message

    def order(self, order: str, timeout: float) -> Row:
        """Send an order and wait for the answer."""
        try:
            self.pipe.send(order)
        except OSError:
            self.row["error"] = "its process is gone"
            self.end()
            return self.row
        return self.receive(timeout)

    def end(self) -> None:
        """Make sure that the process is gone."""
        self.alive = False
        self.process.kill()
        self.process.join()
        self.pipe.close()


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
        OutOfTimeError: At the deadline, if fewer than three rounds are complete.
    """
    workers: list[Worker] = []
    with scratch_folder() as scratch:
        try:
            get_ready(workers, case, names, settings, scratch, deadline, show)
            for name in settings.probes:
                for worker in [w for w in workers if w.alive]:
                    worker.row |= worker.order(name, settings.ready_s).get("probe", {})
            take_turns(workers, settings, deadline, show)
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
    """Let everybody train one epoch per round; the order turns around."""
    for index in range(settings.warmup + settings.rounds):
        if time.monotonic() > deadline:
            if index - settings.warmup < 3:
                raise OutOfTimeError
            return
        show(f"round {index + 1} of {settings.warmup + settings.rounds}")
        alive = [worker for worker in workers if worker.alive]
        for worker in alive if index % 2 == 0 else reversed(alive):
            message = worker.order("go", settings.ready_s)
            if index >= settings.warmup and worker.alive:
                worker.wall.append(message["wall_s"])
                worker.cpu.append(message["cpu_s"])


def finish(worker: Worker) -> None:
    """Stop it; keep its memory and what it told."""
    message = worker.order("stop", 30)
    if worker.alive:
        worker.row |= {"memory": message["memory"], "told": message["told"]}
        worker.end()


def summary(worker: Worker) -> Row:
    """The row of a contestant: times in us per step, one per round."""
    row = dict(worker.row)
    if "error" in row:
        return {"error": row["error"]}
    steps = row["steps"]
    row["losses"] = worker.losses
    row["wall_us"] = [1e6 * each / steps for each in worker.wall]
    row["cpu_us"] = [1e6 * each / steps for each in worker.cpu]
    steady_s = statistics.median(worker.wall)
    # what the first epoch took longer than a later one, and one step of a later one
    row["first_step_s"] = max(0.0, row.pop("since_begin_s") - steady_s * (steps - 1) / steps)
    return row
