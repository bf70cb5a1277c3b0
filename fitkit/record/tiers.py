"""Which backend runs a program, and from when on: a compile must pay for itself."""

import sys
import time
import warnings
from typing import final

from fitkit.loop.state import State
from fitkit.record.program import Program
from fitkit.record.recording import Recording
from fitkit.record.region import StepInputs

__all__ = ["Tiers"]

# A program that ran so often is no ragged last batch, and its replays can be timed.
_PROVEN = 40
# An inductor compile of a step takes about so long, and leaves about this share of its time.
_COMPILE_S = 12.0
_SHARE_LEFT = 0.4


@final
class Tiers:
    """Decides when a program is compiled.

    With an explicit backend the first program of its kind compiles at once. Others, such as that
    of a smaller last batch, are interpreted until they have proven that they come often. With
    "auto" on a CPU a program compiles if the replays still planned save more time than it costs.

    Args:
        backend: As for `Record`.
        always_at_once: Compile every program before its first replay.
    """

    def __init__(self, backend: str, *, always_at_once: bool = False) -> None:
        self._backend = backend
        self._always_at_once = always_at_once
        self._compiled_kinds: set[tuple[object, ...]] = set()
        self._began: dict[int, tuple[float, int]] = {}

    def promote(self, recording: Recording, inputs: StepInputs, state: State) -> None:
        """Compile the program if it is time. Changes no state but that of the program."""
        program = recording.program
        backend = self._wanted(state)
        if program is None or program.backend == backend or backend == "interpret":
            return
        kind = (state.phase, state.turn, state.opens_update, state.closes_update)
        explicit = self._backend != "auto" or state.device.type == "cuda"
        at_once = self._always_at_once or (explicit and kind not in self._compiled_kinds)
        if at_once or (
            program.num_replays >= _PROVEN and (explicit or self._pays(recording, state))
        ):
            self._compiled_kinds.add(kind)
            self._compile(recording.title, program, backend, inputs)

    def _compile(self, title: str, program: Program, backend: str, inputs: StepInputs) -> None:
        _announce(f"fitkit: compiling {title} with {backend} ...")
        try:
            program.compile(backend, inputs.tensors)
        except Exception as error:
            _announce(" failed\n")
            if self._backend != "auto":
                error.add_note(f"while compiling {title} with {backend}")
                raise
            self._backend = "interpret"
            warnings.warn(
                f"Record cannot compile {title} with {backend}, it goes on interpreting\n"
                f"{type(error).__name__}: {str(error).partition(chr(10))[0]}\n"
                'Record("interpret") does not try; Record("inductor") shows the whole error.',
                stacklevel=2,
            )
        else:
            _announce(f" {program.compile_s:.1f} s\n")

    def _wanted(self, state: State) -> str:
        if self._backend != "auto":
            return self._backend
        return {"cuda": "cudagraph", "cpu": "inductor"}.get(state.device.type, "interpret")

    def _pays(self, recording: Recording, state: State) -> bool:
        """Return whether the replays still planned save more seconds than a compile takes."""
        program = recording.program
        if program is None:
            return False
        now = time.perf_counter()
        began, count = self._began.setdefault(id(recording), (now, program.num_replays))
        replays = program.num_replays - count
        if replays < _PROVEN:
            return False
        del self._began[id(recording)]  # look again after as many replays
        step_s = (now - began) / replays
        saved_s = step_s * (1 - _SHARE_LEFT) * _planned_batches(state)
        return saved_s > _COMPILE_S


def _planned_batches(state: State) -> float:
    """Return how many more training batches this call of `fit` will see, if it can be told."""
    if state.max_steps is not None:
        return state.max_steps - state.num_updates
    if state.max_epochs is None or state.num_batches_expected is None:
        return 0.0
    epochs_left = state.max_epochs - state.epoch - 1
    return epochs_left * state.num_batches_expected + (
        state.num_batches_expected - state.batch_index - 1
    )


def _announce(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()
