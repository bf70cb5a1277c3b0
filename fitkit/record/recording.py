"""One step of a key: run eagerly at first, then traced, then replayed; or refused for good."""

from collections.abc import Sequence
from typing import Any, final

from torch import Tensor

from fitkit.loop.bus import EventBus, owner_of
from fitkit.loop.callback import Hook
from fitkit.loop.events import Event
from fitkit.loop.runner import Runner
from fitkit.loop.state import State
from fitkit.record.audit import audit, is_due
from fitkit.record.constants import Constants
from fitkit.record.grads import GradBuffers, Gradients
from fitkit.record.passes import simplify
from fitkit.record.program import Program
from fitkit.record.python_state import PythonState, refuse_changes
from fitkit.record.refused import Refused
from fitkit.record.region import StepInputs, publish, published, substituted
from fitkit.record.trace import trace

__all__ = ["Recording", "Recorder"]


@final
class Recorder:
    """What all recordings of a loop share.

    Attributes:
        runner: Runs the region eagerly.
        constants: The tensors of Python numbers.
        buffers: The gradients that outlive a step.
    """

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.constants = Constants()
        self.buffers = GradBuffers()

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
        state = self.state
        outputs = not with_metrics or "outputs" in state.needs or state.phase == "predict"

        def region(tensors: Sequence[Tensor]) -> dict[str, Any]:
            with substituted(state, tensors):
                self.runner.run_update()
                if with_metrics:
                    self.runner.run_metrics()
                return published(state, tensors, outputs=outputs)

        gradients = self._gradients()
        names, before = state.log_buffer.names, python.snapshot()
        where = _LastHook()
        self.bus.add_tracer(where)
        try:
            step = trace(region, inputs.tensors, gradients=gradients, constants=self.constants)
            refuse_changes(python, before)
        except Refused as refusal:
            python.restore(before)
            refusal.event, refusal.callback = where.event, where.callback
            raise
        finally:
            self.bus.remove_tracer(where)
            state.log_buffer.keep_only(names)
        simplify(step)
        return Program(step, gradients=gradients)

    def _gradients(self) -> Gradients:
        state = self.state
        whole = state.opens_update and state.closes_update
        kept = not whole or "gradients" in state.needs
        parameters: list[Tensor] = list(state.model.parameters())
        return Gradients(parameters, buffers=self.buffers if kept else None)


@final
class _LastHook:
    """Remembers which hook runs, to say who is to blame for a refusal."""

    event: Event | None = None
    callback = ""

    def __call__(self, event: Event, hook: Hook, state: State) -> None:
        self.event, self.callback = event, type(owner_of(hook)).__name__
        hook(state)


@final
class Recording:
    """The steps that share a key.

    Attributes:
        title: Phase, turn and batch size, for the report.
        program: What replays the step; None while it runs eagerly.
        refusal: Why it runs eagerly for good, in part or whole; None if it does not.
        eager_metrics: Whether UPDATE_METRICS runs eagerly after the program.
        num_eager: Steps run eagerly.
    """

    def __init__(self, recorder: Recorder, title: str) -> None:
        self.title = title
        self.program: Program | None = None
        self.refusal: Refused | None = None
        self.eager_metrics = False
        self.num_eager = 0
        self._recorder = recorder

    def run_eagerly(self) -> None:
        """Run one step with Python."""
        self.num_eager += 1
        self._recorder.runner.run_region()

    def replay(self, inputs: StepInputs) -> None:
        """Run one step without Python; a program must exist."""
        assert self.program is not None  # noqa: S101  # the caller has looked
        if is_due(self.program):
            self._audit(self.program, inputs)
            return
        publish(self._recorder.state, self.program(inputs.tensors))
        if self.eager_metrics:
            self._recorder.runner.run_metrics()

    def _audit(self, program: Program, inputs: StepInputs) -> None:
        """Run the step both ways from one state; the eager way counts."""
        recorder = self._recorder
        difference = audit(
            program,
            inputs.tensors,
            recorder.runner.run_update if self.eager_metrics else recorder.runner.run_region,
            lambda: published(recorder.state, inputs.tensors, outputs=False),
        )
        if self.eager_metrics:
            recorder.runner.run_metrics()
        if difference is not None:
            self.program = None
            self.refusal = Refused(f"a replay differs from the eager step: {difference}")

    def trace(self, inputs: StepInputs, python: PythonState) -> None:
        """Make the program, or keep the reason why there is none."""
        try:
            self.program = self._recorder.trace(inputs, python, with_metrics=True)
        except Refused as refusal:
            self.refusal = refusal
            if refusal.event is Event.UPDATE_METRICS:
                self._trace_without_metrics(inputs, python)

    def _trace_without_metrics(self, inputs: StepInputs, python: PythonState) -> None:
        try:
            self.program = self._recorder.trace(inputs, python, with_metrics=False)
            self.eager_metrics = True
        except Refused as refusal:
            self.refusal = refusal
