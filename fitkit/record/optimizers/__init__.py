"""What of the optimizers the host decides at each step, made recordable.

One file per case: learning rates of torch optimizers (`torch_rates`), functions and branching
schedules as learning rates of Keras (`keras_rate`), accumulation and overwriting inside Keras
optimizers (`keras_phase`), dynamic loss scaling (`keras_scale`).
"""

from collections.abc import Generator, Hashable, Iterable, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, final

from torch.optim import Optimizer

from fitkit.interop import is_keras
from fitkit.record.optimizers.find import optimizers_by_turn
from fitkit.record.optimizers.keras_phase import KerasPhase
from fitkit.record.optimizers.keras_rate import KerasRate
from fitkit.record.optimizers.keras_scale import KerasScale
from fitkit.record.optimizers.live import Live
from fitkit.record.optimizers.step_count import StepCount
from fitkit.record.optimizers.torch_rates import TorchRates

__all__ = ["Optimizers", "optimizers_by_turn"]


@dataclass
class _Known:
    optimizer: Any
    lives: list[Live] = field(default_factory=list[Live])


@final
class Optimizers:
    """All optimizers that a Record meets. One object, because programs share their tensors."""

    def __init__(self) -> None:
        self._known: dict[int, _Known] = {}
        self._selected: Sequence[Any] = ()
        self._counts: list[StepCount] = []
        self._lives: list[Live] = []  # of the step that is about to run
        self._torch: list[TorchRates] = []
        self._resting: list[TorchRates] = []  # of the others, which a step may look at

    def select(self, optimizers: Sequence[Any]) -> None:
        """Say which optimizers the next step may apply."""
        if optimizers is self._selected:
            return
        self._selected = optimizers
        for optimizer in optimizers:
            if id(optimizer) not in self._known:
                self._known[id(optimizer)] = _Known(optimizer, list(self._lives_of(optimizer)))
        self._lives = [live for each in optimizers for live in self._known[id(each)].lives]
        self._torch = [live for live in self._lives if isinstance(live, TorchRates)]
        known = [live for each in self._known.values() for live in each.lives]
        self._resting = [
            live for live in known if isinstance(live, TorchRates) and live not in self._torch
        ]

    def _lives_of(self, optimizer: Any, *, inside: bool = False) -> Iterable[Live]:
        if isinstance(optimizer, Optimizer):
            yield TorchRates(optimizer)
            return
        inner: list[Any] = [*getattr(optimizer, "optimizers", ())]
        if hasattr(optimizer, "inner_optimizer"):
            inner.append(optimizer.inner_optimizer)
        for each in inner:
            yield from self._lives_of(each, inside=True)
        if is_keras(optimizer, "optimizers.LossScaleOptimizer"):
            yield KerasScale(optimizer)
        # How often an inner optimizer is applied depends on what the outer one finds on the device.
        count = None if inner or inside else StepCount(optimizer)
        yield KerasRate(optimizer, count)
        if count is not None:
            self._counts.append(count)
            yield KerasPhase(optimizer, count)

    def key(self) -> Hashable:
        """Return what a program depends on. Syncs: after an eager step, where Keras accumulates."""
        return tuple([live.key() for live in self._lives])

    def slots(self) -> Hashable:
        """Return which tensors torch's optimizers keep; asked once a first step has made them."""
        return tuple([slot for rates in self._torch for slot in rates.slots()])

    def hide(self) -> None:
        """Hide the rates that tensors stand for: they are not what a program depends on."""
        for rates in (*self._torch, *self._resting):
            rates.hide()

    def show(self) -> None:
        """Put the rates back."""
        for rates in (*self._torch, *self._resting):
            rates.show()

    def rehearse(self) -> None:
        """Run the user's functions that are learning rates, to see what they do."""
        for live in self._lives:
            live.rehearse()

    @contextmanager
    def traced(self) -> Generator[None]:
        """Let the optimizers take what a trace can follow."""
        with ExitStack() as stack:
            for live in (*self._lives, *self._resting):
                stack.enter_context(live.traced())
            yield

    def answer(self) -> bool | None:
        """Return the outcome of the truth test that is being traced, if it is known."""
        outcomes = (live.answer() for live in self._lives)
        return next((outcome for outcome in outcomes if outcome is not None), None)

    def give_way(self) -> bool:
        """Return whether there is another way of tracing to try after a refusal."""
        return sum(live.give_way() for live in self._lives) > 0  # ask each of them

    def advice(self) -> str:
        """Return what to do about a refusal at APPLY, if that is known."""
        return next((advice for live in self._lives if (advice := live.advice())), "")

    def fill(self, read: frozenset[int]) -> None:
        """Write the host's numbers into the tensors (ids) that a program is about to read."""
        for live in (*self._lives, *self._resting):
            live.fill(read)

    def ran(self, written_once: frozenset[int]) -> None:
        """Take note that a program ran and wrote each of these tensors (ids) once."""
        for count in self._counts:
            count.ran(written_once)
