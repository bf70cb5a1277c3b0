"""When `fit` ends by itself: after so many epochs, updates or seconds, whichever comes first."""

import math

from fitkit.errors import ConfigError, brief
from fitkit.loop.interval import positive_int
from fitkit.loop.state import State

__all__ = ["set_budget", "stop_if_spent"]


def set_budget(
    state: State,
    epochs: int | None,
    max_steps: int | None,
    max_time: object,
    *,
    total: bool = False,
) -> None:
    """Write the limits of this call of `fit` to the state; `total` ones count from the beginning.

    Raises:
        ConfigError: If no limit is given or one is not positive.
    """
    if epochs is None and max_steps is None and max_time is None:
        raise ConfigError(
            "fit() was given no limit: epochs, max_steps and max_time are all None\n"
            "Pass at least one, for example epochs=3 or max_steps=1000."
        )
    epoch, num_updates = (0, 0) if total else (state.epoch, state.num_updates)
    state.max_epochs = None if epochs is None else epoch + positive_int("epochs", epochs)
    state.max_steps = (
        None if max_steps is None else num_updates + positive_int("max_steps", max_steps)
    )
    state.max_time_s = None if max_time is None else _seconds(max_time)


def _seconds(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf:
        return value
    raise ConfigError(
        f"max_time={brief(value)} ({type(value).__name__}), expected a finite number above 0\n"
        "Give the seconds after which to stop, for example max_time=3600."
    )


def stop_if_spent(state: State) -> None:
    """Request a stop if the updates or seconds are used up, or a signal has asked for it."""
    if state.stop_signal is not None:  # the flag may be one that a rehearsal has put back
        state.request_stop("a signal")
    elif state.max_steps is not None and state.num_updates >= state.max_steps:
        state.request_stop(f"max_steps: {state.num_updates} updates done")
    elif state.max_time_s is not None and state.elapsed_s >= state.max_time_s:
        state.request_stop(f"max_time: {state.max_time_s:g} s are over")
