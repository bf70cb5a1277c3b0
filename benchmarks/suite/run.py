"""`python -m benchmarks run`: measures one case after the other until the time is over."""

import argparse
import os
import sys
import time
from collections.abc import Callable

from benchmarks import callbacks_cost
from benchmarks.harness import RESULTS, machine
from benchmarks.suite.bars import first
from benchmarks.suite.cases import CASES, Case, find
from benchmarks.suite.contestants import CONTESTANTS
from benchmarks.suite.plan import BUILT_IN, chooser, estimate, plan, title_of
from benchmarks.suite.plan import said as in_minutes
from benchmarks.suite.process import Settings
from benchmarks.suite.ready import OutOfTimeError, Until
from benchmarks.suite.report import report
from benchmarks.suite.rounds import run_case
from benchmarks.suite.rows import Row, heading, rows_of
from benchmarks.suite.show import Screen
from benchmarks.suite.store import Store

ROUNDS = {False: 15, True: 7}
READY_S = {False: 300.0, True: 150.0}
"""Without and with `--quick`."""
QUICK_MINUTES = 7.5
AT_ONCE = 4


def run(arguments: argparse.Namespace, device: str) -> int:
    """Measure what was asked for; return the exit status."""
    settings = settings_of(arguments, device)
    minutes = arguments.minutes or (QUICK_MINUTES if arguments.quick else float("inf"))
    deadline = time.monotonic() + 60 * minutes
    path = arguments.out or RESULTS / f"suite_{device}{'_quick' * arguments.quick}.json"
    names = plan(arguments.cases, device, arguments.quick)
    store = Store(path.resolve(), {**vars(settings), "quick": arguments.quick})
    suite = Suite(store, settings, chooser(arguments, device), deadline, Screen(sys.stdout))
    left = names_to_measure(suite, names)
    expected = min(estimate(left, arguments.quick), 60 * minutes)
    print(f"cases to measure: {len(left)}, {in_minutes(expected)}", flush=True)
    suite.measure(left)
    print(f"wrote {path}")
    if arguments.report:
        return report([path])
    print(f"draw it: python -m benchmarks report {path}")
    return 0


def settings_of(arguments: argparse.Namespace, device: str) -> Settings:
    """How to measure."""
    cores = os.cpu_count() or 1
    return Settings(
        device=device,
        threads=arguments.threads,
        rounds=arguments.rounds or ROUNDS[arguments.quick],
        ready_s=READY_S[arguments.quick],
        at_once=max(1, min(AT_ONCE, cores // arguments.threads)),
        probes=("kernels", "syncs") if device != "cpu" else (),
    )


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
        # by what the cases share the time: what is known about all contestants is about a CPU
        self.is_short = store.settings.get("quick") or settings.device != "cpu"

    def contestants(self, name: str) -> list[str]:
        """Who is to have a row for the case."""
        if name == BUILT_IN:
            return list(callbacks_cost.REGISTRY)
        case, device = find(name), self.settings.device
        return [
            each
            for each in self.wanted(case)
            if not (CONTESTANTS[each].why_not(case, device) or "").startswith("only on")
        ]

    def is_done(self, name: str) -> bool:
        """Whether all of them have one, and had the time for it."""
        there = set(self.store.done(name)) - set(self.store.late(name))
        return set(self.contestants(name)) <= there

    def measure(self, names: list[str]) -> None:
        """Measure these; what there is no time for is named in the file."""
        for index, name in enumerate(names):
            self.screen.begin(f"[{index + 1}/{len(names)}] {title_of(name)}")
            until = self._share(names[index:])
            try:
                rows = self._rows(name, until)
            except OutOfTimeError:
                self.store.leave_out(name)
                self.screen.end("left out: no time")
                continue
            self.store.put(name, rows)
            self.screen.end(said(rows))
        self.store.write()

    def _share(self, names: list[str]) -> Until:
        """The time of the first: what is left is shared by what they take."""
        part = estimate(names[:1], self.is_short) / estimate(names, self.is_short)
        return Until(self.deadline, self.deadline).part(part)

    def _rows(self, name: str, until: Until) -> list[Row]:
        least = time.monotonic() + estimate([name], True) / 8  # not worth beginning
        if least > until.deadline:
            raise OutOfTimeError
        return self._callbacks(until) if name == BUILT_IN else self._case(find(name), until)

    def _case(self, case: Case, until: Until) -> list[Row]:
        """Measure who is wanted and who has a row: only those of the same rounds compare."""
        asked = {*self.contestants(case.name), *self.store.done(case.name)}
        device, names = self.settings.device, [name for name in CONTESTANTS if name in asked]
        reasons = {name: CONTESTANTS[name].why_not(case, device) for name in names}
        able = [name for name, reason in reasons.items() if reason is None]
        measured = run_case(case, able, self.settings, until=until, show=self.screen.say)
        measured |= {name: {"left_out": reason} for name, reason in reasons.items() if reason}
        return rows_of(case, measured, vars(self.settings))

    def _callbacks(self, until: Until) -> list[Row]:
        """What each built-in callback adds to a step; each is kept when it is done."""
        rows = [row for row in self.store.result["rows"] if row["case"] == BUILT_IN]
        there = {row["contestant"] for row in rows}
        for name in [name for name in callbacks_cost.REGISTRY if name not in there]:
            if time.monotonic() > until.share:
                raise OutOfTimeError
            self.screen.say(name)
            rows.append(callback_row(name, self.settings))
            self.store.put(BUILT_IN, rows)
        return rows


def callback_row(name: str, settings: Settings) -> Row:
    """What a callback adds, eager and replayed."""
    recorded = "interpret" if settings.device == "cpu" else "cudagraph"
    adds = {
        mode: callbacks_cost.cost(name, backend, rounds, device=settings.device)
        for mode, backend, rounds in (("eager", None, 12), (recorded, recorded, 40))
    }
    about = heading(CASES["mlp-32"], "fitkit", vars(settings), machine(settings.device))
    return about | {
        "case": BUILT_IN,
        "title": title_of(BUILT_IN),
        "contestant": name,
        "label": name,
        "family": "callback",
        "adds_us": {mode: each["adds_us_per_step"] for mode, each in adds.items()},
        "adds_p5_p95": {mode: each["adds_p5_p95"] for mode, each in adds.items()},
        "kernels_us": adds["eager"]["kernels_us_per_step"],
    }


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
    best = first(row for row in timed if row["family"] != "floor")
    if best is None:
        return f"{len(rows)} rows"
    unfair = [row["contestant"] for row in timed if row["fair"]["ok"] is False]
    line = (
        f"{len(timed)} contestants, first {best['label']}, {best['us_per_step']['median']:,.0f} us"
    )
    line += f"; failed: {', '.join(failed)}" if failed else ""
    return line + (f"; another loss: {', '.join(unfair)}" if unfair else "")
