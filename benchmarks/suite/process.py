"""A contestant in a process of its own, seen from outside: orders go in, messages come out."""

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.suite.bars import MIN_ROUNDS
from benchmarks.suite.cases import Case
from benchmarks.suite.server import CONTEXT, start
from benchmarks.suite.worker import work

Row = dict[str, Any]
LATE = "no answer within"


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Attributes:
        device: "cpu" or "cuda".
        threads: Threads of torch in every contestant.
        warmup: Rounds thrown away.
        rounds: Rounds measured, or fewer where time is short.
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

    @property
    def windows(self) -> int:
        """The rounds that `Benchmark` measures, too: those that there are in any case."""
        return min(self.rounds, MIN_ROUNDS)


class Worker:
    """A contestant in its process, and the row it fills."""

    def __init__(self, name: str, case: Case, settings: Settings, scratch: Path) -> None:
        self.name, self.row, self.alive = name, Row(), True
        self.wall: list[float] = []
        self.cpu: list[float] = []
        self.passes: list[float] = []
        self.losses: dict[int, float] = {}
        self.states: dict[int, float] = {}
        self.num_steps = 0
        self.started = time.monotonic()
        options = {
            "device": settings.device,
            "threads": settings.threads,
            # the first epoch builds, traces and compiles
            "before": 1 + settings.warmup,
            "rounds": settings.rounds,
            "windows": settings.windows,
            "after": len(settings.probes),
            "scratch": str(scratch / name),
        }
        start()
        self.pipe, other = CONTEXT.Pipe()
        self.process = CONTEXT.Process(
            target=work, args=(other, name, case.name, options), daemon=True
        )
        self.process.start()
        self.pid = self.process.pid
        other.close()

    def receive(self, timeout: float) -> Row:
        """The next message; a failure ends the worker and stands in its row."""
        message: Row = {"error": f"{LATE} {timeout:.0f} s"}
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
        self.row |= {key: message[key] for key in ("memory", "told") if key in message}
        if "loss" in message:
            self.losses.setdefault(0, message["start_loss"])
            self.losses[self.num_steps] = message["loss"]
            self.states[self.num_steps] = message["state"]
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
        """Make sure that the process is gone, and what it has started.

        A compiler that went on would slow the others down: two cores are often two halves of one.
        """
        self.alive = False
        with contextlib.suppress(ProcessLookupError):  # it has not come to `os.setpgid`
            os.killpg(self.pid, signal.SIGKILL)
        self.process.kill()
        self.process.join()
        self.pipe.close()


def summary(worker: Worker, settings: Settings) -> Row:
    """The row of a contestant: times in us per step, one per round.

    With one thread on a CPU the time of the process counts: it leaves out what other programs take.
    """
    row = dict(worker.row)
    for key in ("error", "left_out"):
        if key in row:
            return {key: row[key]}
    if not worker.wall:
        return {"left_out": "there was no time for a round"}
    steps = row["steps"]
    row |= {"losses": worker.losses, "states": worker.states}
    row["wall_us"] = [1e6 * each / steps for each in worker.wall]
    row["pass_us"] = [1e6 * each / steps for each in worker.passes[: settings.windows]]
    row["cpu_us"] = [1e6 * each / steps for each in worker.cpu]
    alone = settings.device == "cpu" and settings.threads == 1
    row["us"] = row["cpu_us"] if alone else row["wall_us"]
    # what the first epoch took longer than a later one, and one step of a later one
    step_s = min(worker.wall) / steps
    row["first_step_s"] = max(step_s, row.pop("since_begin_s") - step_s * (steps - 1))
    return row
