"""What still happens after a stop was requested, found by running every case."""

from collections.abc import Callable

import torch

from fitkit import Callback, Event, FitLoop, Phase, State, TensorLoader
from fitkit.loop.events import hook_name

__all__ = ["COLUMNS", "stop_row", "stop_table"]

NUM_BATCHES = 3

REST_OF_BATCH, REST_OF_PASS = "rest of the batch", "rest of the pass"
COLUMNS = (
    *(REST_OF_BATCH, REST_OF_PASS),
    *("PASS_END", "VALIDATE", "EPOCH_END", "SAVE", "FIT_END", "CLOSE"),
)
BEFORE, AFTER = "before the first batch", "after the pass"
FIRST, LAST = "first batch", "last batch"
IN_VAL, IN_MID_VAL = "validation pass", "validation in mid-pass"
PLACES = {
    BEFORE: (Event.OPEN, Event.FIT_BEGIN, Event.EPOCH_BEGIN, Event.PASS_BEGIN),
    FIRST: tuple(e for e in Event if Event.BATCH_BEGIN <= e <= Event.BATCH_END),
    LAST: tuple(e for e in Event if Event.BATCH_BEGIN <= e <= Event.BATCH_END),
    AFTER: (Event.PASS_END, Event.VALIDATE, Event.EPOCH_END, Event.SAVE, Event.FIT_END),
    IN_VAL: (Event.PASS_BEGIN, Event.BATCH_BEGIN, Event.FORWARD, Event.BATCH_END, Event.PASS_END),
    IN_MID_VAL: (Event.PASS_BEGIN, Event.FORWARD, Event.PASS_END),
}
Record = tuple[Event, Phase | None]  # event, phase of its pass
Hook = Callable[["Everything", State], None]


class Everything(Callback):
    """Fills every action with nothing, validates, and keeps a record of what fired.

    Args:
        event: Where to request a stop.
        place: In which of the places above.
    """

    def __init__(self, event: Event, *, place: str) -> None:
        self.event, self.place = event, place
        self.records: list[Record] = []
        self.stopped_at: int | None = None

    def attach(self, loop: FitLoop) -> None:
        """Keep the loop, to validate with it."""
        self.loop = loop

    def fired(self, event: Event, state: State) -> None:
        """Record an event, and request a stop if this is where."""
        phase = getattr(state, "phase", None)
        if event is self.event and self.stopped_at is None and self.is_here(state, phase):
            state.request_stop("the table wants to know")
            self.stopped_at = len(self.records)
        self.records.append((event, phase))
        if event is Event.VALIDATE:
            self.loop.runner.run_pass(Phase.VAL, self.loop.val_loaders[""], prefix="val_")
        if event is Event.BATCH_BEGIN and phase is Phase.TRAIN and self.place == IN_MID_VAL:
            state.request(Event.VALIDATE)

    def is_here(self, state: State, phase: Phase | None) -> bool:
        """Whether the run is at the place of the request."""
        if self.place in (IN_VAL, IN_MID_VAL):
            return phase is Phase.VAL
        if phase is Phase.VAL:
            return False
        index = getattr(state, "batch_index", 0)
        return index == NUM_BATCHES - 1 if self.place in (LAST, AFTER) and phase else index == 0


def _recording(event: Event) -> Hook:
    def hook(self: Everything, state: State) -> None:
        self.fired(event, state)

    hook.__name__ = hook_name(event)
    return hook


Recorder = type("Recorder", (Everything,), {hook_name(event): _recording(event) for event in Event})


def run_with_stop(event: Event, place: str) -> list[Record]:
    """Run two epochs and request a stop at `event`; return what fired from there on."""
    callback = Recorder(event, place=place)
    batches = TensorLoader(torch.zeros(NUM_BATCHES, 1), batch_size=1)
    val = TensorLoader(torch.zeros(2, 1), batch_size=1)
    FitLoop(torch.nn.Linear(1, 1), batches, val, callbacks=[callback]).fit(epochs=2)
    if callback.stopped_at is None:
        raise RuntimeError(f"the run never came to {event.name}, {place}")
    return callback.records[callback.stopped_at :]


def stop_row(event: Event, place: str) -> tuple[str, ...]:
    """One row: what still fires after a stop was requested at `event`."""
    here, *later = run_with_stop(event, place)
    in_train = {e for e, phase in later if phase is Phase.TRAIN}
    outside = {e for e, phase in later if phase is None}
    if {Event.BATCH_BEGIN, Event.EPOCH_BEGIN} & (in_train | outside):
        raise RuntimeError(f"training went on after a stop at {event.name}, {place}")
    in_same = same_pass(event, here[1], later)
    happens = {
        REST_OF_BATCH: Event.BATCH_BEGIN <= event < Event.BATCH_END and Event.BATCH_END in in_same,
        REST_OF_PASS: Event.BATCH_BEGIN in in_same,
        "PASS_END": Event.PASS_END in in_train,
        **{e.name: e in outside for e in Event if e >= Event.VALIDATE},
    }
    return (f"`{event.name}`", place, *("yes" if happens[column] else "" for column in COLUMNS))


def same_pass(event: Event, phase: Phase | None, later: list[Record]) -> list[Event]:
    """What still fires in the pass in which `event` fired."""
    if phase is None or event is Event.PASS_END:
        return []
    in_phase = [e for e, other in later if other is phase]
    return in_phase[: in_phase.index(Event.PASS_END) + 1]


def stop_table() -> list[tuple[str, ...]]:
    """The rows of all cases; neighbouring events of one place with the same answer share a row."""
    rows: list[tuple[str, ...]] = []
    for place, events in PLACES.items():
        for event in events:
            row = stop_row(event, place)
            if rows and rows[-1][1:] == row[1:]:
                rows[-1] = (f"{rows[-1][0]} {row[0]}", *row[1:])
            else:
                rows.append(row)
    return [(shortened(names), *rest) for names, *rest in rows]


def shortened(names: str) -> str:
    """`A` `B` `C` becomes `A` to `C`."""
    parts = names.split(" ")
    return names if len(parts) < 3 else f"{parts[0]} to {parts[-1]}"
