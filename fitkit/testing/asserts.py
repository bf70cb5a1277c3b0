"""What a run does in its steps, and in which order."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fitkit.loop.callback import Callback, Hook
from fitkit.loop.events import BATCH_EVENTS, Event, hook_name
from fitkit.loop.origin import owner_of
from fitkit.loop.state import State
from fitkit.testing.reads import counted_reads
from fitkit.testing.recording import RecordingCallback

if TYPE_CHECKING:
    from fitkit.loop.fit_loop import FitLoop

__all__ = ["assert_event_order", "assert_no_sync"]


def assert_no_sync(loop: "FitLoop", *, of: Callback | None = None, epochs: int = 2) -> None:
    """Train, and demand that no hook of a batch reads a tensor, from the second batch on.

    The first batch of a pass is left out: it is checked, and what is lazy is built.

    Args:
        loop: What is trained.
        of: Only the hooks of this callback count; default is all. Optimizers of torch that are not
            fused read their step counts.
        epochs: How long.

    Raises:
        AssertionError: Naming callback, hook and how it reads.
    """
    with counted_reads() as reads:

        def count(event: Event, hook: Hook, state: State) -> None:
            owner = owner_of(hook)
            counts = event in BATCH_EVENTS and state.batch_index > 0 and of in (None, owner)
            if not counts or reads.armed:
                hook(state)
                return
            with reads.armed_for(f"{type(owner).__name__}.{hook_name(event)}"):
                hook(state)

        loop.bus.add_tracer(count)
        try:
            loop.fit(epochs)
        finally:
            loop.bus.remove_tracer(count)
    if reads.by:
        listed = "\n".join(f"{number} x {what}" for what, number in reads.by.items())
        raise AssertionError(f"{reads.by.total()} reads of tensors in {epochs} epochs\n{listed}")


def assert_event_order(loop: "FitLoop", expected: Sequence[Event], *, epochs: int = 1) -> None:
    """Train, and demand that these events come in this very order, each as often as listed.

    Args:
        loop: What is trained.
        expected: Moments, of all phases; those that are not among them do not count.
        epochs: How long.

    Raises:
        AssertionError: Showing where the first difference is.
    """
    recording = RecordingCallback()
    loop.attach(recording)
    try:
        loop.fit(epochs)
    finally:
        loop.detach(recording)
    found = [event for event in recording.events if event in set(expected)]
    for index, pair in enumerate(zip(found, expected, strict=False)):
        if pair[0] is not pair[1]:
            raise AssertionError(f"event {index} is {pair[0].name}, expected {pair[1].name}")
    if len(found) != len(expected):
        raise AssertionError(f"there were {len(found)} of these events, expected {len(expected)}")
