"""`python -m benchmarks run`: which cases, who takes part, until when."""

import argparse
import os
import sys
import time
from collections.abc import Callable

from benchmarks import callbacks_cost
from benchmarks.harness import RESULTS, machine
from benchmarks.suite.cases import AXES, CASES, GROUPS, QUICK, QUICK_POINTS, Case, find
from benchmarks.suite.contestants import CONTESTANTS
from benchmarks.suite.process import Settings
from benchmarks.suite.report import report
from benchmarks.suite.rounds import OutOfTimeError, run_case
from benchmarks.suite.rows import Row, heading, rows_of
from benchmarks.suite.show import Screen
from benchmarks.suite.store import Store

FULL = {"warmup": 1, "rounds": 15, "ready_s": 300.0}
SHORT = {"warmup": 1, "rounds": 6, "ready_s": 150.0}
QUICK_MINUTES = 7.2
FASTEST = ("record-inductor", "record-cudagraph")


def run(arguments: argparse.Namespace, device: str) -> int:
    """Measure what was asked for; return the exit status."""
    numbers = SHORT if arguments.quick else FULL
    settings = Settings(
        device=device,
        threads=arguments.threads,
        warmup=numbers["warmup"],
        rounds=arguments.rounds or numbers["rounds"],
        ready_s=numbers["ready_s"],
        at_once=max(1, min(2, (os.cpu_count() or 1) // arguments.threads)),
        probes=("kernels", "syncs") if device != "cpu" else (),
    )
    minutes = arguments.minutes or (QUICK_MINUTES if arguments.quick else float("inf"))
    deadline = time.monotonic() + 60 * minutes
    path = arguments.out or RESULTS / f"suite_{device}{'_quick' * arguments.quick}.json"
    names = plan(arguments.cases, device, arguments.quick)
    store = Store(path.resolve(), {**vars(settings), "quick": arguments.quick})
    suite = Suite(store, settings, chooser(arguments), deadline, Screen(sys.stdout))
    suite.measure(names_to_measure(suite, names))
    print(f"wrote {path}")
    if arguments.report:
        return report([path])
    print(f"draw it: python -m benchmarks report {path}")
    return 0


class Suite:
    """Measures one case after the other until the time is over."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        wanted: Callable[[Case], list[str]],
        deadline: float,
        screen: Screen,
    ) -> None:
        self.store, self.settings, self.wanted = store, settings, wanted
        self.deadline, self.screen = deadline, screen

    def contestants(self, name: str) -> list[str]:
        """Who is to have a row for the case."""
        if name == "built-in":
            return list(callbacks_cost.REGISTRY)
        case, device = find(name), self.settings.device
        return [
            each
            for each in self.wanted(case)
            if not (CONTESTANTS[each].why_not(case, device) or "").startswith("only on")
        ]

    def is_done(self, name: str) -> bool:
        """Whether all of them have one."""
        return set(self.contestants(name)) <= set(self.store.done(name))

    def measure(self, names: list[str]) -> None:
        """Measure these; what there is no time for is named in the file."""
        for index, name in enumerate(names):
            self.screen.begin(f"[{index + 1}/{len(names)}] {title_of(name)}")
            if time.monotonic() + self._needs(name) > self.deadline:
                self._leave_out(name)
                continue
            try:
                rows = self._callbacks() if name == "built-in" else self._case(find(name))
            except OutOfTimeError:
                self._leave_out(name)
                continue
            self.store.put(name, rows)
            self.screen.end(said(rows))
        self.store.write()

    def _needs(self, name: str) -> float:
        """Seconds that a case should at least have: half of what it takes at worst."""
        return 30 if name == "built-in" else find(name).seconds / 2

    def _leave_out(self, name: str) -> None:
        self.store.leave_out(name)
        self.screen.end("left out: no time")

    def _case(self, case: Case) -> list[Row]:
        """Measure who is wanted and who has a row: only those of the same rounds compare."""
        asked = {*self.contestants(case.name), *self.store.done(case.name)}
        device, names = self.settings.device, [name for name in CONTESTANTS if name in asked]
        reasons = {name: CONTESTANTS[name].why_not(case, device) for name in names}
        able = [name for name, reason in reasons.items() if reason is None]
        measured = run_case(case, able, self.settings, deadline=self.deadline, show=self.screen.say)
        measured |= {name: {"left_out": reason} for name, reason in reasons.items() if reason}
        return rows_of(case, measured, vars(self.settings))

    def _callbacks(self) -> list[Row]:
        """What each built-in callback adds to a step, eager and replayed."""
        rows, case = [], CASES["mlp-32"]
        recorded = "interpret" if self.settings.device == "cpu" else "cudagraph"
        for name in callbacks_cost.REGISTRY:
            if time.monotonic() > self.deadline:
                raise OutOfTimeError
            self.screen.say(name)
            row = heading(case, "fitkit", vars(self.settings), machine(self.settings.device))
            adds = {
                mode: callbacks_cost.cost(name, backend, rounds=7, device=self.settings.device)
                for mode, backend in {"eager": None, recorded: recorded}.items()
            }
            row |= {"case": "built-in", "title": "Built-in callbacks", "contestant": name,
                    "label": name, "family": "callback",
                    "adds_us": {k: v["adds_us_per_step"] for k, v in adds.items()},
                    "adds_p5_p95": {k: v["adds_p5_p95"] for k, v in adds.items()},
                    "kernels_us": adds["eager"]["kernels_us_per_step"]}  # fmt: skip
            rows.append(row)
        return rows


def names_to_measure(suite: Suite, names: list[str]) -> list[str]:
    """Those that are not done; all of them, into a new file, if there are no such."""
    store, left = suite.store, [name for name in names if not suite.is_done(name)]
    if not left:
        store.move_aside()
        left = names
    if store.moved is not None:
        print(f"the result that was there is kept as {store.moved}")
    elif store.result["rows"]:
        print(f"going on with {store.path}: {len(names) - len(left)} of {len(names)} are there")
    return left


def said(rows: list[Row]) -> str:
    """One line about a case that is done."""
    timed = [row for row in rows if "us_per_step" in row]
    failed = [row["contestant"] for row in rows if "error" in row]
    if not timed:
        return f"{len(rows)} rows"
    best = min(
        (r for r in timed if r["family"] != "floor"), key=lambda r: r["us_per_step"]["median"]
    )
    unfair = [row["contestant"] for row in timed if row["fair"]["ok"] is False]
    line = (
        f"{len(timed)} contestants, first {best['label']}, {best['us_per_step']['median']:,.0f} us"
    )
    line += f"; failed: {', '.join(failed)}" if failed else ""
    return line + (f"; another loss: {', '.join(unfair)}" if unfair else "")


def title_of(name: str) -> str:
    return "Built-in callbacks" if name == "built-in" else find(name).title


def plan(asked: list[str] | None, device: str, quick: bool) -> list[str]:
    """Names of cases: as asked for, with groups and curves unfolded, or all there are.

    Raises:
        SystemExit: If a name is unknown.
    """
    points = QUICK_POINTS if quick else AXES
    if asked is None:
        asked = [*(QUICK if quick else CASES), "curves", *(() if quick else ("built-in",))]
    names: list[str] = []
    for name in asked:
        if name in GROUPS:
            names += plan(list(GROUPS[name]), device, quick)
        elif name == "curves":
            names += plan(list(points), device, quick)
        elif name in AXES:
            names += [f"{name}={value}" for value in points[name]]
        else:
            names.append(name)
    try:
        known = [n for n in names if n == "built-in" or device in find(n).devices]
    except KeyError as error:
        choices = ", ".join([*CASES, *AXES, "curves", "built-in", *GROUPS])
        raise SystemExit(f"there is no case {error}\nUse some of: {choices}.") from None
    return list(dict.fromkeys(known))


def chooser(arguments: argparse.Namespace) -> Callable[[Case], list[str]]:
    """Which contestants a case is to have."""

    def wanted(case: Case) -> list[str]:
        names = [name for name in CONTESTANTS if case.only is None or name in case.only]
        if arguments.quick:
            names = [name for name in names if not CONTESTANTS[name].slow]
        if arguments.quick and case.name != "mlp-32":
            names = [name for name in names if name != "record-loader"]  # one more compile
        if arguments.quick and case.axis is not None:
            names = [name for name in names if name not in FASTEST]  # a compile per point
        if arguments.peers is not None:
            peers = {name for name in names if CONTESTANTS[name].family == "peer"}
            names = [name for name in names if name not in peers or name in arguments.peers]
        if arguments.contestants is not None:
            names = [name for name in names if name in arguments.contestants]
        return names

    return wanted
