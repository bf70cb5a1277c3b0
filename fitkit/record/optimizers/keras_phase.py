"""The branches inside a Keras optimizer's update whose outcome the host knows.

With `gradient_accumulation_steps=k`, Keras asks a tensor at each step whether it is the k-th; with
`ema_overwrite_frequency`, whether the weights are to be overwritten. Both depend on the step count
alone. The host counts along, the outcome is part of the program's key, and there is one program
per outcome.
"""

from collections.abc import Generator, Hashable
from contextlib import contextmanager
from typing import Any, cast, final

from fitkit.record.optimizers.live import Live
from fitkit.record.optimizers.step_count import StepCount
from fitkit.record.refused import Refused

__all__ = ["KerasPhase"]


@final
class KerasPhase(Live):
    """The outcomes of the branches in one Keras optimizer's update.

    Args:
        optimizer: A `keras.optimizers.Optimizer` that is not inside another one.
        count: The host's copy of its step counter.
    """

    def __init__(self, optimizer: Any, count: StepCount) -> None:
        self._optimizer = optimizer
        self._count = count
        self._open: list[bool] = []  # the answers left, while `apply` is traced
        self._applied = False

    def key(self) -> Hashable:
        """Return the outcomes at the next step."""
        return tuple(self._outcomes())

    def _outcomes(self) -> list[bool]:
        """Return the outcomes in the order in which they are asked."""
        optimizer, outcomes = self._optimizer, list[bool]()
        every = optimizer.gradient_accumulation_steps
        if every:
            outcomes.append((self._count.read() + 1) % every == 0)
        frequency = optimizer.use_ema and optimizer.ema_overwrite_frequency
        if frequency:
            updates = self._count.read() // (every or 1)
            outcomes.append((updates + 1) % frequency == 0)
        return outcomes

    def answer(self) -> bool | None:
        """Return the next outcome while `apply` is traced, and None elsewhere."""
        return self._open.pop(0) if self._open else None

    @contextmanager
    def traced(self) -> Generator[None]:
        """Notice when `apply` begins and ends: only its own branches are answered."""
        attributes = cast("dict[str, Any]", vars(self._optimizer))
        apply, outcomes = self._optimizer.apply, self._outcomes()
        self._applied = False

        def traced_apply(*args: Any, **kwargs: Any) -> None:
            if self._applied and outcomes:
                raise Refused("the step applies a Keras optimizer twice, which counts its updates")
            self._applied, self._open = True, list(outcomes)
            apply(*args, **kwargs)
            if self._open:
                raise Refused("the branches of the Keras optimizer are not the ones that it counts")

        attributes["apply"] = traced_apply
        try:
            yield
        finally:
            self._open = []
            del attributes["apply"]
