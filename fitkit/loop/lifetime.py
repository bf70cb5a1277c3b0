"""Where the fields of the state begin and end: a fit, a pass, a batch, the step region."""

import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any

from torch import Tensor

from fitkit.data import Gather, batch_size_of
from fitkit.data.structure import map_leaves
from fitkit.loop.events import Phase
from fitkit.loop.fields import BATCH_FIELDS, PASS_FIELDS
from fitkit.loop.packed import PACKED, keep_packed
from fitkit.loop.state import UNSET, State

__all__ = [
    "begin_batch",
    "begin_fit",
    "count_batch",
    "count_turn",
    "end_region",
    "frame",
    "is_placed",
    "separate_logs",
]


def begin_fit(state: State) -> None:
    """Start a call of `fit`: counters go on, flags are cleared."""
    state.stop, state.stop_reason = False, None
    state.requests.clear()
    state.rates = {}
    state.epoch_batches = 0
    state.started_at = time.perf_counter()


@contextmanager
def frame(state: State, phase: Phase, prefix: str, num_batches: int | None) -> Generator[None]:
    """Run a pass with pass and batch fields of its own; put the outer ones back afterwards."""
    fields = (*PASS_FIELDS, *BATCH_FIELDS, "pending", "packed")
    outer = {name: state.peek(name) for name in fields}
    state.unset(fields)
    state.pending = state.packed = None
    state.phase, state.prefix, state.num_batches_expected = phase, prefix, num_batches
    state.log_owners = {}
    try:
        with ExitStack() as state.exits:
            state.logged.begin(phase, state.exits)
            yield
    except BaseException as error:
        if not is_placed(error):  # only the innermost pass knows the batch
            error.add_note(f"in the {phase} pass, {state.place()}")
        raise
    finally:
        state.unset(fields)
        for name, value in outer.items():
            if value is not UNSET:
                setattr(state, name, value)


def begin_batch(state: State, item: Any, index: int, data_wait_s: float) -> None:
    """Start a batch: `item` is a structure on the device, or a `Gather` that can wait."""
    state.unset(BATCH_FIELDS)
    state.batch_index = index
    state.data_wait_s = data_wait_s
    state.extra = SimpleNamespace()
    state.step_values = {}
    state.losses = {}
    state.grad_scale = None
    state.turn = state.packed = None
    state.opens_update = state.closes_update = True
    if isinstance(item, Gather) and state.unpack is None:
        state.pending = item  # gathered when somebody reads the batch
        state.batch_size = item.batch_size
        return
    state.set_batch(item.take() if isinstance(item, Gather) else item)
    state.batch_size = batch_size_of(state.batch)


def end_region(state: State) -> None:
    """End the step region: count the turn; from here on nothing holds the graph."""
    if state.closes_update:
        count_turn(state)
    if hasattr(state, "loss") and state.loss.requires_grad:
        state.loss = state.loss.detach()
    if any(part.requires_grad for part in state.losses.values()):
        state.losses = {name: part.detach() for name, part in state.losses.items()}
    if PACKED in state.needs:
        keep_packed(state)
    if state.phase is Phase.PREDICT or "outputs" in state.needs:
        state.outputs = _detached(state.outputs)
    else:
        state.unset(("outputs",))


def count_turn(state: State) -> None:
    """Count the window that the current turn has completed."""
    if state.turn is not None:
        state.turn_updates[state.turn] = state.turn_updates.get(state.turn, 0) + 1


def count_batch(state: State, *, updated: bool) -> None:
    """Count the training batch that has run, and the window it closed if any turn ran in it."""
    state.num_batches += 1
    state.num_samples += state.batch_size
    state.epoch_batches += 1
    state.num_updates += updated and state.closes_update


@contextmanager
def separate_logs(state: State) -> Generator[dict[str, float]]:
    """Let the body log into a dict of its own."""
    outer, state.logs = state.logs, {}
    try:
        yield state.logs
    finally:
        state.logs = outer


def is_placed(error: BaseException) -> bool:
    """Return whether a note of the error already says in which pass it was raised."""
    return any(note.startswith("in the ") for note in getattr(error, "__notes__", ()))


def _detached(structure: Any) -> Any:
    return map_leaves(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, structure)
