"""Checks of an assembled stack, before the first batch: nothing missing, doubled or misplaced."""

from collections.abc import Iterable, Sequence

from fitkit.errors import CallbackOrderError
from fitkit.loop.bus import Entry, flatten
from fitkit.loop.callback import Callback, Turn, filled_by, listens_to
from fitkit.loop.events import ACTIONS, REGION, Event, Phase

__all__ = ["SUPPLIERS", "check_assembly"]

SUPPLIERS: dict[Event, tuple[str, ...]] = {
    Event.ZERO_GRAD: ("ZeroGrad",),
    Event.FORWARD: ("Forward",),
    Event.LOSS: ("TorchLoss", "KerasLoss"),
    Event.BACKWARD: ("Backward",),
    Event.APPLY: ("TorchStep", "KerasApply"),
}
"""The classes that fill each action, for the error message of a missing one."""


def check_assembly(entries: Sequence[Entry], phase: Phase) -> None:
    """Check that `entries` can run a pass of `phase`.

    Raises:
        CallbackOrderError: If an action of the phase is empty or filled twice, if a callback
            listens to a moment that a whole-step callback swallows, or is listed before one that
            it declares in `after`.
    """
    turns = [entry for entry in entries if isinstance(entry, Turn)]
    for turn in turns if phase is Phase.TRAIN and turns else [None]:
        shared = [c for c in entries if isinstance(c, Callback) and phase in c.phases]
        own = [c for c in turn.callbacks if phase in c.phases] if turn else []
        _check_doubled(entries, shared, phase)
        _check_doubled(entries, own, phase)
        _check_missing(entries, [*shared, *own], phase, turn)
        _check_swallowed(entries, [*shared, *own], phase)
    _check_after(flatten(entries))


def _check_doubled(entries: Sequence[Entry], scope: list[Callback], phase: Phase) -> None:
    for event in ACTIONS[phase]:
        filling = [callback for callback in scope if event in filled_by(callback)]
        if len(filling) > 1:
            names = " and ".join(_numbered(entries, filling))
            raise CallbackOrderError(
                f"{event.name} is filled twice in {phase}: {names}\n"
                "Remove one of them, or put each into a Turn of its own."
            )


def _check_missing(
    entries: Sequence[Entry], scope: list[Callback], phase: Phase, turn: Turn | None
) -> None:
    filled = {event for callback in scope for event in filled_by(callback)}
    for event in ACTIONS[phase]:
        if event in filled or (event is Event.LOSS and phase is Phase.VAL):
            continue
        where = f"{phase}, turn '{turn.name}'" if turn else str(phase)
        given = ", ".join(type(callback).__name__ for callback in flatten(entries)) or "none"
        way_out = "start from supervised(loss=, optimizer=)"
        if phase is Phase.VAL:
            way_out = "do not validate: leave out val_loader="
        raise CallbackOrderError(
            f"nothing fills {event.name} in {where}\n"
            f"Callbacks given: {given}.\n"
            f"Add {' or '.join(SUPPLIERS[event])}, or {way_out}."
        )


def _check_swallowed(entries: Sequence[Entry], scope: list[Callback], phase: Phase) -> None:
    for event in REGION[phase]:
        whole = [c for c in scope if event in c.fills and not listens_to(c, event)]
        deaf = [c for c in scope if c not in whole and listens_to(c, event)]
        if whole and deaf:
            raise CallbackOrderError(
                f"{_numbered(entries, deaf)[0]} listens to {event.name}, which never fires\n"
                f"{_numbered(entries, whole)[0]} runs the whole step by itself.\n"
                "Remove one of them."
            )


def _check_after(callbacks: list[Callback]) -> None:
    for index, callback in enumerate(callbacks):
        for other in callbacks[index + 1 :]:
            if type(other).__name__ in callback.after:
                first, second = _numbered(callbacks, [callback, other])
                raise CallbackOrderError(
                    f"{first} is listed before {second}, whose work it needs"
                    f"{_where_both_listen(callback, other)}\n"
                    f"Right order: {type(other).__name__}, {type(callback).__name__}."
                )


def _where_both_listen(one: Callback, other: Callback) -> str:
    both = [e.name for e in REGION[Phase.TRAIN] if listens_to(one, e) and listens_to(other, e)]
    return f" at {both[0]}" if both else ""


def _numbered(entries: Sequence[Entry], callbacks: Iterable[Callback]) -> list[str]:
    everyone = flatten(entries)
    return [f"callbacks[{everyone.index(c)}] {type(c).__name__}" for c in callbacks]
