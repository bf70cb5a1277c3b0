"""What a run measures: which cases in which order, who takes part, how long that takes."""

import argparse
from collections.abc import Callable, Iterable

from benchmarks import callbacks_cost
from benchmarks.suite.cases import AXES, CASES, GROUPS, QUICK_POINTS, Case, find
from benchmarks.suite.contestants import CONTESTANTS

BUILT_IN = "built-in"
CALLBACK_S = {True: 6.0, False: 15.0}
START_S = 15.0
"""Until the libraries are imported."""


def plan(asked: list[str] | None, device: str, quick: bool) -> list[str]:
    """Names of cases: as asked for, with groups and curves unfolded, or all there are.

    All there are, without `--quick`: the shortest first, so that whoever ends the run early has
    many of them.

    Raises:
        SystemExit: If a name is unknown.
    """
    points = QUICK_POINTS if quick else AXES
    everything = [*CASES, "curves", *(() if quick else (BUILT_IN,))]
    names: list[str] = []
    for name in everything if asked is None else asked:
        if name in GROUPS:
            names += plan(list(GROUPS[name]), device, quick)
        elif name == "curves":
            names += plan(list(points), device, quick)
        elif name in AXES:
            names += [f"{name}={value}" for value in points.get(name, AXES[name])]
        else:
            names.append(name)
    try:
        known = [n for n in names if n == BUILT_IN or device in find(n).devices]
    except KeyError as error:
        choices = ", ".join([*CASES, *AXES, "curves", BUILT_IN, *GROUPS])
        raise SystemExit(f"there is no case {error}\nUse some of: {choices}.") from None
    if asked is None and not quick:
        known.sort(key=lambda name: estimate([name], quick))
    return list(dict.fromkeys(known))


def chooser(arguments: argparse.Namespace, device: str) -> Callable[[Case], list[str]]:
    """Which contestants a case is to have.

    Raises:
        SystemExit: If a name is unknown.
    """
    peers = [name for name, each in CONTESTANTS.items() if each.family == "peer"]
    _check_known("peer", arguments.peers, peers)
    _check_known("contestant", arguments.contestants, [*CONTESTANTS])

    def wanted(case: Case) -> list[str]:
        names = [name for name in CONTESTANTS if case.only is None or name in case.only]
        if arguments.quick:
            names = [name for name in names if case.kind in CONTESTANTS[name].quick]
            names = [name for name in names if name not in case.quick_without]
        if case.axis is not None and (arguments.quick or device != "cpu"):
            names = [name for name in names if name != "record-inductor"]  # a compile per point
        if arguments.peers is not None:
            names = [name for name in names if name not in peers or name in arguments.peers]
        if arguments.contestants is not None:
            names = [name for name in names if name in arguments.contestants]
        return names

    return wanted


def _check_known(what: str, asked: list[str] | None, known: list[str]) -> None:
    odd = [name for name in asked or () if name not in known]
    if odd:
        raise SystemExit(f"there is no {what} {odd[0]!r}\nUse some of: {', '.join(known)}.")


def estimate(names: Iterable[str], quick: bool) -> float:
    """Seconds that these take on two cores."""
    return sum(seconds(name, quick) for name in names)


def seconds(name: str, quick: bool) -> float:
    if name == BUILT_IN:
        return CALLBACK_S[quick] * len(callbacks_cost.REGISTRY)
    return find(name).seconds if quick else find(name).full_seconds


def said(seconds: float) -> str:
    """A length of time, as one says it."""
    return f"about {max(1, round(seconds / 60))} minutes" if seconds > 90 else "about a minute"


def title_of(name: str) -> str:
    return "Built-in callbacks" if name == BUILT_IN else find(name).title
