"""One step of a key: run eagerly at first, then traced, then replayed; or refused for good."""

from collections.abc import Sequence
from typing import Any, final

from torch import Tensor

from fitkit.loop.bus import EventBus
from fitkit.loop.events import REGION, Event
from fitkit.loop.runner import Runner
from fitkit.loop.state import State
from fitkit.record.audit import audit, is_due
from fitkit.record.constants import Constants
from fitkit.record.grads import GradBuffers, Gradients
from fitkit.record.optimizers import Optimizers
from fitkit.record.passes import simplify
from fitkit.record.passes.writes import written_once
from fitkit.record.program import Program
from fitkit.record.published import publish, published
from fitkit.record.python_state import PythonState
from fitkit.record.refused import Refused, WritesNumber
from fitkit.record.region import StepInputs, substituted
from fitkit.record.trace import trace
from fitkit.record.undone import undone

__all__ = ["Recording", "Recorder"]


@final
class Recorder:
    """What all recordings of a loop share.

    Attributes:
        runner: Runs the region eagerly.
        constants: The tensors of Python numbers.
        buffers: The gradients that outlive a step.
        optimizers: What the host decides about updates.
        rehearses: Whether only replays count: first steps are undone, audits keep the replay.
    """

    def __init__(self, runner: Runner, *, rehearses: bool = False) -> None:
        self.runner = runner
        self.rehearses = rehearses
        self.constants = Constants()
        self.buffers = GradBuffers()
        self.optimizers = Optimizers()

    @property
    def bus(self) -> EventBus:
        """The bus whose hooks are recorded."""
        return self.runner.bus

    @property
    def state(self) -> State:
        """The state the hooks read and write."""
        return self.runner.state

    def trace(self, inputs: StepInputs, python: PythonState, *, with_metrics: bool) -> Program:
        """Trace the region of the current batch and turn; nothing real moves.

        Raises:
            Refused: If a replay could differ from the step as it is written.
        """
        try:
            return self._traced(inputs, python, with_metrics)
        except WritesNumber:
            if self.constants.copied:
                raise
            self.constants.copy_from_now_on()
            return self._traced(inputs, python, with_metrics)

    def _traced(self, inputs: StepInputs, python: PythonState, with_metrics: bool) -> Program:
        state = self.state
        outputs = not with_metrics or "outputs" in state.needs or state.phase == "predict"

        def region(tensors: Sequence[Tensor]) -> dict[str, Any]:
            with substituted(state, tensors):
                self.runner.run_update()
                if with_metrics:
                    self.runner.run_metrics()
                return published(state, tensors, outputs=outputs)

        python.refuse_unseen()
        gradients = self._gradients(with_metrics)
        self._rehearse(python)
        with self.optimizers.traced(), undone(self.bus, state, python):
            step = trace(
                region,
                inputs.tensors,
                gradients=gradients,
                constants=self.constants,
                branch=self.optimizers.answer,
            )
        simplify(step)
        return Program(step, gradients=gradients)

    def _rehearse(self, python: PythonState) -> None:
        """Refuse learning rates that change Python state when they are computed."""
        before = python.snapshot()
        self.optimizers.rehearse()
        change = python.change(before)
        python.restore(before)
        if change is not None:
            raise Refused(f"the learning rate changes Python state: {change}")

    def _gradients(self, with_metrics: bool) -> Gradients:
        state = self.state
        whole = state.opens_update and state.closes_update
        # Metrics that run eagerly may look at the gradients of the step.
        kept = not (whole and with_metrics) or "gradients" in state.needs
        parameters: list[Tensor] = list(state.model.parameters())
        return Gradients(parameters, buffers=self.buffers if kept else None)


@final
class Recording:
    """The steps that share a key.

    Attributes:
        title: Phase, turn and batch size, for the report.
        program: What replays the step; None while it runs eagerly.
        refusal: Why it runs eagerly for good, in part or whole; None if it does not.
        eager_metrics: Whether UPDATE_METRICS runs eagerly after the program.
        num_eager: Steps run eagerly.
        is_built: Whether one step ran, and built what is built lazily.
    """

    def __init__(self, recorder: Recorder, title: str) -> None:
        self.title = title
        self.program: Program | None = None
        self.refusal: Refused | None = None
        self.eager_metrics = False
        self.num_eager = 0
        self.is_built = False
        self._recorder = recorder
        self._read = self._written_once = frozenset[int]()  # ids of the program's tensors
        self._layout: list[object] = []

    def run_eagerly(self) -> None:
        """Run one step with Python."""
        self._recorder.runner.run_region()
        self.num_eager += 1
        # A step that raised may not have built everything, nor one that asks for another.
        self.is_built = not self._recorder.state.eager_requested

    def replay(self, inputs: StepInputs) -> None:
        """Run one step without Python; a program must exist."""
        assert self.program is not None  # noqa: S101  # the caller has looked
        optimizers = self._recorder.optimizers
        optimizers.fill(self._read)
        if is_due(self.program):
            self._audit(self.program, inputs)
            return
        try:
            results = self.program(inputs.tensors)
        except BaseException as error:
            error.add_note(f"while replaying {self.title}: {self._events()}")
            raise
        optimizers.ran(self._written_once)
        publish(self._recorder.state, results)
        if self.eager_metrics:
            self._recorder.runner.run_metrics()

    def drop_moved(self) -> None:
        """Drop the program if somebody gave one of its tensors other memory, as `.data = ...` does.

        Compiled kernels read addresses, sizes and strides as they were.
        """
        if self.program is not None and _layout(self.program.step.state) != self._layout:
            self.program = None

    def _events(self) -> str:
        """Return the events the program stands for."""
        state = self._recorder.state
        skipped = {Event.UPDATE_METRICS} if self.eager_metrics else set[Event]()
        if not state.opens_update:
            skipped.add(Event.ZERO_GRAD)
        if not state.closes_update:
            skipped |= {Event.GRADS_READY, Event.APPLY}
        return " ".join(event.name for event in REGION[state.phase] if event not in skipped)

    def _audit(self, program: Program, inputs: StepInputs) -> None:
        """Run the step both ways from one state; the eager way counts, if first steps do."""
        recorder = self._recorder
        audited = audit(
            program,
            inputs.tensors,
            recorder.runner.run_update if self.eager_metrics else recorder.runner.run_region,
            lambda: published(recorder.state, inputs.tensors, outputs=False),
            list(recorder.state.model.parameters()),
            list(recorder.state.model.buffers()),
            keeps_replay=recorder.rehearses,
        )
        if audited.results is not None:
            publish(recorder.state, audited.results)
        if self.eager_metrics:
            recorder.runner.run_metrics()
        if audited.difference is not None:
            self.program = None
            self.refusal = Refused(f"a replay differs from the eager step: {audited.difference}")

    def trace(self, inputs: StepInputs, python: PythonState) -> None:
        """Make the program, or keep the reason why there is none."""
        try:
            self._keep(self._recorder.trace(inputs, python, with_metrics=True))
        except Refused as refusal:
            if refusal.event is Event.APPLY and self._recorder.optimizers.give_way():
                self.trace(inputs, python)
                return
            self.refusal = self._advised(refusal)
            if refusal.event is Event.UPDATE_METRICS:
                self._trace_without_metrics(inputs, python)

    def _trace_without_metrics(self, inputs: StepInputs, python: PythonState) -> None:
        try:
            self._keep(self._recorder.trace(inputs, python, with_metrics=False))
            self.eager_metrics = True
        except Refused as refusal:
            if self._recorder.optimizers.give_way():  # it was not the metrics alone
                self.refusal = None
                self.trace(inputs, python)
                return
            self.refusal = self._advised(refusal)

    def _keep(self, program: Program) -> None:
        self.program = program
        self._layout = _layout(program.step.state)
        self._read = frozenset(map(id, program.step.state))
        self._written_once = frozenset(map(id, written_once(program.step)))

    def _advised(self, refusal: Refused) -> Refused:
        """Return the verdict with what to do about it, without the frames it came through."""
        if refusal.event is Event.APPLY:
            refusal.advice = self._recorder.optimizers.advice()
        return refusal.forgetful()


def _layout(tensors: Sequence[Tensor]) -> list[object]:
    # In C: it runs at every step.
    return [
        *map(Tensor.data_ptr, tensors),
        *map(Tensor.size, tensors),
        *map(Tensor.stride, tensors),
    ]
