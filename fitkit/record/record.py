"""Record: the step region traced once through all its callbacks, then replayed without Python."""

from collections.abc import Hashable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Literal, final, get_args

from torch import Tensor

from fitkit.data import Gather
from fitkit.data.structure import leaves
from fitkit.errors import ConfigError
from fitkit.loop.callback import Callback
from fitkit.loop.events import Phase
from fitkit.loop.runner import nothing_recorded
from fitkit.loop.state import State
from fitkit.record.key import kind_of, program_key, step_keys
from fitkit.record.optimizers import optimizers_by_turn
from fitkit.record.python_state import PythonState
from fitkit.record.recording import Recorder, Recording
from fitkit.record.refused import Refused
from fitkit.record.region import StepInputs, region_of, step_functions, step_inputs
from fitkit.record.rehearsal import rehearsal
from fitkit.record.report import Verdicts, render_report
from fitkit.record.tiers import Tiers
from fitkit.record.unchanged import Unchanged

if TYPE_CHECKING:
    from fitkit.loop.fit_loop import FitLoop

__all__ = ["Record"]

Key = tuple[Hashable, ...]
Backend = Literal["auto", "interpret", "inductor", "cudagraph"]
_MAX_PROGRAMS = 16
# Loaders whose batches are gathered inside of programs; one made for every evaluation would give
# new programs, and keep its arrays alive.
_MAX_ARRAYS = 4


@final
class Record(Callback):
    """Trace the step region once through all its callbacks, then replay it without Python.

    The first step of every kind (phase, turn, batch shape, ...) runs eagerly, because it builds
    what is built lazily. The second is traced; from then on the program runs. Weights, optimizer
    slots and metrics stay where they are and are changed in place, so whatever is assigned to
    them between two steps takes effect. What a program depends on besides tensors is its key: a
    changed flag, attribute, shape or stack gives a new program.

    A step that cannot be replayed right is refused: it runs eagerly, with one warning that names
    callback, event and line. If only UPDATE_METRICS is refused, only that part runs eagerly.

    Args:
        backend: "interpret" replays the very operations of the eager step, bit for bit.
            "inductor" compiles them, equal within rounding; a compile takes seconds. "cudagraph"
            captures what inductor compiled; CUDA only. "auto" is "cudagraph" on CUDA; on a CPU
            "interpret", then "inductor" if the replays still planned pay for the compile.
        strict: Raise a refusal instead of running eagerly.
        max_programs: Beyond so many kinds of step, new ones run eagerly.
        rehearse: Undo the first step of every kind, and let only replays count, so that all steps
            of a run are computed the same way: a run resumed in between then ends bit-identical
            with "inductor" and "cudagraph", too. Needs a backend by name; implies strict. Hooks
            of the step run once more per kind than its steps count.

    Reads:  what the recorded callbacks read.
    Writes: what the recorded callbacks write: state.loss, losses, step_values; outputs where a
        callback needs them. Gradients are not on the weights after a replayed step unless a
        callback declares `needs = {"gradients"}`.
    Logs:   nothing; `loop.record_report()` tells what was recorded.
    Syncs:  never per step.
    Raises: ConfigError for an unknown backend or a second Record; Refused if strict.

    Example:
        ```python
        import torch
        from fitkit import FitLoop, Record, TensorLoader, supervised

        model = torch.nn.Linear(4, 1)
        loop = FitLoop(model, TensorLoader(torch.randn(64, 4), torch.randn(64, 1)))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        loop.attach(supervised(loss=torch.nn.MSELoss(), optimizer=optimizer), Record("interpret"))
        loop.fit(epochs=3)
        print(loop.record_report())
        ```
    """

    def __init__(
        self,
        backend: Backend = "auto",
        *,
        strict: bool = False,
        max_programs: int = _MAX_PROGRAMS,
        rehearse: bool = False,
    ) -> None:
        if backend not in get_args(Backend):
            raise ConfigError(
                f"Record(backend={backend!r}) is unknown\n"
                f"Use one of: {', '.join(get_args(Backend))}."
            )
        if rehearse and backend == "auto":
            raise ConfigError(
                'Record("auto", rehearse=True) chooses a backend by the time that steps take\n'
                'Name one, such as Record("inductor", rehearse=True): its steps can be repeated.'
            )
        self.backend: Backend = backend
        self.strict = strict or rehearse
        self.rehearse = rehearse
        self.max_programs = max_programs
        self.recordings: dict[Key, Recording] = {}
        self._recorder: Recorder | None = None
        self._tiers = Tiers(backend, always_at_once=rehearse)
        self._python: PythonState | None = None
        self._changing: dict[Hashable, Recording] = {}  # their step changes Python state
        self._arrays: dict[Hashable, list[Tensor]] = {}
        self._version = -1
        self._region: Hashable = None
        self._applied: dict[str | None, list[Any]] = {}  # optimizers by turn
        self._unchanged = Unchanged()
        self._verdicts = Verdicts(strict=self.strict)

    def attach(self, loop: "FitLoop") -> None:
        """Take over running the step region."""
        if loop.runner.run_step != loop.runner.run_region:
            raise ConfigError("the loop already has a Record\nAttach one Record per loop.")
        self._recorder = Recorder(loop.runner, rehearses=self.rehearse)
        loop.runner.run_step = self.run_step
        loop.runner.report = self.report

    def detach(self, loop: "FitLoop") -> None:
        """Give the step region back to Python."""
        loop.runner.run_step = loop.runner.run_region
        loop.runner.report = nothing_recorded
        self.recordings.clear()
        self._changing.clear()
        self._arrays.clear()
        self._applied.clear()
        self._unchanged.forget()
        self._recorder = self._python = None

    def report(self) -> str:
        """Return what was recorded: nodes, seconds, replays, eager steps and why."""
        return render_report(self.recordings.values())

    def on_pass_begin(self, state: State) -> None:
        """See whether the step reaches the same: layers may have been added or replaced."""
        self._unchanged.forget()
        bus, python = self._recorder_now().bus, self._python
        if bus.version == self._version and python and python.reaches_the_same(state.model):
            return
        if bus.version != self._version:
            self._version, region = bus.version, region_of(bus)
            if region != self._region:
                self._changing.clear()
                self.recordings.clear()  # they hold hooks that may be gone
                self._region = region
        callbacks = bus.step_callbacks
        hooks = [function for callback in callbacks for function in step_functions(callback)]
        self._python = PythonState(state.model, callbacks, hooks, before=python)
        self._applied = optimizers_by_turn(bus)

    def on_validate(self, state: State) -> None:
        """Take note that anybody's code may run now."""
        self._unchanged.forget()

    def on_save(self, state: State) -> None:
        """Take note that anybody's code may run now."""
        self._unchanged.forget()

    def run_step(self) -> None:
        """Run the step region of the current batch and turn."""
        state, bus = self._recorder_now().state, self._recorder_now().bus
        if bus.version != self._version or self._python is None:
            self.on_pass_begin(state)
        if state.pending is not None and not self._gathers(state.pending):
            state.set_batch(state.pending.take())
        inputs = step_inputs(state)
        kind = kind_of(state, inputs)
        if kind in self._changing:  # it would have a new key after every step
            self._run_eagerly(self._changing[kind])
            return
        optimizers = self._optimizers_key(state)
        assert self._python is not None  # noqa: S101  # made above
        kind = (*kind, optimizers, step_keys(self._python))
        recording = self._unchanged.recording_of(kind, state)
        if recording is None:
            recording = self._looked_up(inputs, optimizers)
            if recording is None:
                return
            self._unchanged.keep(kind, recording, self._recorder_now().runner)
        self._tiers.promote(recording, inputs, state)
        recording.replay(inputs)
        self._verdicts.tell(recording)

    def _looked_up(self, inputs: StepInputs, optimizers: Hashable) -> Recording | None:
        """Look at everything a program depends on; return what replays it, or run it eagerly."""
        state = self._recorder_now().state
        key = self._key(state, inputs, optimizers)
        recording = self.recordings.get(key)
        if recording is None or inputs.opaque is not None:
            if len(self.recordings) < self.max_programs:
                self.on_pass_begin(state)  # what changed may lead to what was out of reach
                key = self._key(state, inputs, optimizers)
            recording = self._recording(key, state, inputs)
        if recording is None or state.eager_requested or not recording.is_built:
            recording = self._first(recording, key, inputs, optimizers)
            if recording is None:
                return None
        recording.drop_moved()
        if recording.program is None and recording.refusal is None:
            self._trace(recording, inputs)
            if recording.refusal is not None and recording.refusal.changes_python:
                self._changing[kind_of(state, inputs)] = recording
        if recording.program is None:
            self._run_eagerly(recording)
            return None
        return recording

    def _first(
        self, recording: Recording | None, key: Key, inputs: StepInputs, optimizers: Hashable
    ) -> Recording | None:
        """Run a step eagerly; return what goes on to replay it, if it was only rehearsed."""
        state = self._recorder_now().state
        rehearsed = self.rehearse and recording is not None and not state.eager_requested
        applied = self._applied[state.turn] if state.phase is Phase.TRAIN else ()
        assert self._python is not None  # noqa: S101  # run_step has made it
        with rehearsal(state, applied, self._python) if rehearsed else nullcontext():
            self._run_eagerly(recording)
        new = self._key(state, inputs, optimizers)
        self._rekey(key, new)
        self._python.forget(but={version for version, *_ in self.recordings})
        if not rehearsed or recording is None:
            return None
        recording.num_eager -= 1  # it did not count
        return self.recordings[new]

    def _gathers(self, batch: Gather) -> bool:
        """Return whether programs gather from these arrays; they are held for as long."""
        if batch.ids not in self._arrays and len(self._arrays) < _MAX_ARRAYS:
            self._arrays[batch.ids] = [array for _, array in leaves(batch.arrays)]
        return batch.ids in self._arrays

    def _rekey(self, old: Key, new: Key) -> None:
        """File a first step under what it has become: it built what is built lazily."""
        if old != new and old in self.recordings and self.recordings[old].num_eager == 1:
            self.recordings.setdefault(new, self.recordings.pop(old))

    def _run_eagerly(self, recording: Recording | None) -> None:
        recorder = self._recorder_now()
        recorder.state.eager_requested = False
        if recording is None:
            recorder.runner.run_region()
        else:
            recording.run_eagerly()

    def _optimizers_key(self, state: State) -> Hashable:
        """Return what the update depends on; asked before it, because it counts the updates."""
        optimizers = self._recorder_now().optimizers
        applies = state.phase is Phase.TRAIN and state.closes_update
        optimizers.select(self._applied[state.turn] if applies else ())
        return optimizers.key()

    def _key(self, state: State, inputs: StepInputs, optimizers: Hashable) -> Key:
        assert self._python is not None  # noqa: S101  # run_step has made it
        rates = self._recorder_now().optimizers
        return program_key(state, inputs, self._python, rates, optimizers)

    def _recording(self, key: Key, state: State, inputs: StepInputs) -> Recording | None:
        recording = self.recordings.get(key)
        if inputs.opaque is not None:
            self._verdicts.refuse_opaque(inputs.opaque)
            return None
        if recording is None and len(self.recordings) < self.max_programs:
            turn = f" turn {state.turn}" if state.turn else ""
            title = f"{state.phase}{turn}, batch of {state.batch_size}"
            recording = self.recordings[key] = Recording(self._recorder_now(), title)
        elif recording is None:
            self._verdicts.warn(
                f"Record met more than {self.max_programs} kinds of step; new ones run eagerly.\n"
                "If batch shapes vary, pad them to a few lengths (bucketing). If an attribute of "
                "the model, the optimizer or a callback changes at every step, make it a tensor."
            )
            if self.rehearse:
                raise Refused(f"there are more than {self.max_programs} kinds of step to rehearse")
        return recording

    def _trace(self, recording: Recording, inputs: StepInputs) -> None:
        assert self._python is not None  # noqa: S101  # run_step has made it
        recording.trace(inputs, self._python)
        self._verdicts.tell(recording)

    def _recorder_now(self) -> Recorder:
        if self._recorder is None:
            raise ConfigError("this Record is not attached to a loop\nUse loop.attach(Record()).")
        return self._recorder
