"""The assembled loop as text: event, callback and file, per phase. Read from the dispatch table."""

import inspect
from pathlib import Path
from typing import TYPE_CHECKING

from fitkit.loop.bus import EventBus, owner_of
from fitkit.loop.callback import Hook, Turn
from fitkit.loop.events import ACTIONS, REGION, Event, Phase
from fitkit.loop.listener import Listener

if TYPE_CHECKING:
    from fitkit.loop.fit_loop import FitLoop

__all__ = ["render"]

_ROW = "  {mark} {event:<15} {turn:<10} {name:<20} {file}"


def render(loop: "FitLoop") -> str:
    """Return one row per hook, in firing order. `[A]` marks actions, `|` the step region."""
    recorded = loop.runner.run_step != loop.runner.run_region
    note = ", step region recorded" if recorded else ""
    lines = [f"FitLoop({type(loop.model).__name__}) on {loop.device}{note}"]
    for phase in Phase:
        lines += ["", f"{phase}:", *_rows(loop.bus, phase)]
    return "\n".join(lines)


def _rows(bus: EventBus, phase: Phase) -> list[str]:
    rows: list[str] = []
    for turn, event in _schedule(bus, phase):
        for hook in bus.hooks(phase, event, turn):
            action = "[A]" if event in ACTIONS[phase] else ""
            rows.append(
                _ROW.format(
                    mark="|" if event in REGION[phase] else " ",
                    event=f"{event.name} {action}".rstrip(),
                    turn=turn.name if turn else "",
                    name=type(owner_of(hook)).__name__,
                    file=_file_of(hook),
                ).rstrip()
            )
    return rows


def _schedule(bus: EventBus, phase: Phase) -> list[tuple[Turn | None, Event]]:
    """Return what a batch fires, the step region once per turn."""
    turns = bus.turns if phase is Phase.TRAIN else (None,)
    region = [(turn, event) for turn in turns for event in REGION[phase]]
    before = [(None, event) for event in Event if event < Event.ZERO_GRAD]
    after = [(None, event) for event in Event if event > Event.UPDATE_METRICS]
    if phase is not Phase.TRAIN:  # the moments around a pass are listed once, under train
        before = [(t, e) for t, e in before if e >= Event.PASS_BEGIN]
        after = [(t, e) for t, e in after if e <= Event.PASS_END]
    return [*before, *region, *after]


def _file_of(hook: Hook) -> str:
    owner = owner_of(hook)
    source = owner.function if isinstance(owner, Listener) else type(owner)
    try:
        path = Path(inspect.getsourcefile(source) or "?")
    except TypeError:
        return "?"
    package = Path(__file__).parents[2]
    return str(path.relative_to(package)) if path.is_relative_to(package) else path.name
