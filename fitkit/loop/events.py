"""The moments of a run, in firing order: the source of hook names, docs and `print(loop)`."""

from enum import IntEnum, StrEnum
from functools import cache

__all__ = ["ACTIONS", "BATCH_EVENTS", "REGION", "Event", "Phase", "hook_name"]


class Phase(StrEnum):
    """What a pass over a loader is for."""

    TRAIN = "train"
    VAL = "val"
    PREDICT = "predict"


class Event(IntEnum):
    """Every moment of a run, in firing order.

    `[A]` marks an action: in each phase it is filled by exactly one callback (per `Turn`). All
    others are moments that any number of callbacks may listen to. A hook is `on_` plus the
    lower-case name of its event.

    ```
    OPEN                              fit, evaluate and predict alike: take files, threads
    FIT_BEGIN
      EPOCH_BEGIN
        PASS_BEGIN                    once per pass over a loader
          BATCH_BEGIN                 host side: the batch is on the device and may be changed
            ZERO_GRAD     [A] train
            FORWARD       [A] train val predict
            LOSS          [A] train val
            LOSS_READY        train val
            BACKWARD      [A] train
            GRADS_READY       train
            APPLY         [A] train
            UPDATE_METRICS    train val
          BATCH_END                   host side: the loop has counted
        PASS_END                      epoch metrics are read here, once
      VALIDATE                        Validate runs a whole validation pass here
      EPOCH_END                       sees fresh validation results
      SAVE                            after every other listener
    FIT_END                           only if nothing raised
    EXCEPTION                         only if something raised; the error is always re-raised
    CLOSE                             always, in reverse order, for every opened callback
    ```

    ZERO_GRAD to UPDATE_METRICS are the step region: device work only, so that it can be recorded
    once and replayed. ZERO_GRAD fires where an accumulation window opens; GRADS_READY and APPLY
    where it closes. VALIDATE and SAVE also fire right after a BATCH_END in which somebody called
    `state.request(Event.VALIDATE)` or `state.request(Event.SAVE)`, VALIDATE after an EPOCH_END too.
    """

    OPEN = 0
    FIT_BEGIN = 1
    EPOCH_BEGIN = 2
    PASS_BEGIN = 3
    BATCH_BEGIN = 4
    ZERO_GRAD = 5
    FORWARD = 6
    LOSS = 7
    LOSS_READY = 8
    BACKWARD = 9
    GRADS_READY = 10
    APPLY = 11
    UPDATE_METRICS = 12
    BATCH_END = 13
    PASS_END = 14
    VALIDATE = 15
    EPOCH_END = 16
    SAVE = 17
    FIT_END = 18
    EXCEPTION = 19
    CLOSE = 20


_TRAIN = (Event.ZERO_GRAD, Event.FORWARD, Event.LOSS, Event.BACKWARD, Event.APPLY)

ACTIONS: dict[Phase, tuple[Event, ...]] = {
    Phase.TRAIN: _TRAIN,
    Phase.VAL: (Event.FORWARD, Event.LOSS),
    Phase.PREDICT: (Event.FORWARD,),
}
"""The actions of each phase. LOSS may stay empty in validation; all others must be filled."""

REGION: dict[Phase, tuple[Event, ...]] = {
    Phase.TRAIN: tuple(e for e in Event if Event.ZERO_GRAD <= e <= Event.UPDATE_METRICS),
    Phase.VAL: (Event.FORWARD, Event.LOSS, Event.LOSS_READY, Event.UPDATE_METRICS),
    Phase.PREDICT: (Event.FORWARD,),
}
"""The step region of each phase, in firing order."""

BATCH_EVENTS = frozenset(e for e in Event if Event.BATCH_BEGIN <= e <= Event.BATCH_END)
"""The events that fire once per batch."""


@cache
def hook_name(event: Event) -> str:
    """Return the name of the method that listens to `event`: `on_` + the lower-case name."""
    return f"on_{event.name.lower()}"
