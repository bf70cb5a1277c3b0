"""A Keras learning rate that Python computes: a function, or a schedule with branches.

Schedules of tensor arithmetic are recorded as they are. One that asks a tensor (`warmup_target`,
restarts, an `if` of the user's) cannot be, and the value of a function would be frozen. So the
host evaluates them before each step, as it would have in the step, and a 0-d tensor takes the
value to the program. The optimizer keeps its own schedule or function.
"""

from collections.abc import Generator, Hashable
from contextlib import contextmanager
from typing import Any, cast, final

import torch
from torch import Tensor

from fitkit.interop import is_keras, keras
from fitkit.record.optimizers.live import Live
from fitkit.record.optimizers.step_count import StepCount

__all__ = ["KerasRate"]

_SCALARS = (int, float, bool, str, type(None))


@final
class KerasRate(Live):
    """The learning rate of one Keras optimizer, if it is no variable.

    Args:
        optimizer: A `keras.optimizers.Optimizer`.
        count: The host's copy of its step counter; None if the host cannot count along.
    """

    def __init__(self, optimizer: Any, count: StepCount | None) -> None:
        self._optimizer = optimizer
        self._count = count
        self._evaluated: list[Any] = []  # the schedules that cannot be recorded
        self._tensor: Tensor | None = None
        self._stands_in = False
        self._variable: Any = None  # the rate, once it is known to be one

    @property
    def _rate(self) -> Any:
        return self._optimizer._learning_rate

    def _is_schedule(self) -> bool:
        return is_keras(self._rate, "optimizers.schedules.LearningRateSchedule")

    def _is_function(self) -> bool:
        rate = self._rate
        return callable(rate) and not (self._is_schedule() or is_keras(rate, "Variable"))

    def key(self) -> Hashable:
        """Return what kind of rate it is, and the numbers of a schedule."""
        rate = self._rate
        if rate is self._variable:
            return False
        if not self._is_schedule():
            self._variable = None if self._is_function() else rate
            return self._variable is None
        numbers = [_hashable(value) for value in cast("dict[str, Any]", vars(rate)).values()]
        return id(rate), *numbers

    def _is_evaluated(self) -> bool:
        return any(rate is self._rate for rate in self._evaluated)

    def give_way(self) -> bool:
        """Evaluate the schedule on the host from now on."""
        if not self._is_schedule() or self._is_evaluated() or self._count is None:
            return False
        self._evaluated.append(self._rate)
        return True

    def rehearse(self) -> None:
        """Evaluate a rate that the host has to evaluate."""
        if self._is_function():
            self._stands_in = not isinstance(self._rate(), Tensor)  # tensors are recorded
        else:
            self._stands_in = self._is_evaluated()
            if self._stands_in:
                self._evaluate()

    @contextmanager
    def traced(self) -> Generator[None]:
        """Let the optimizer read a tensor instead, if the host has to evaluate the rate."""
        if not self._stands_in:
            yield
            return
        rate, tensor = self._rate, self._tensor_now()
        self._optimizer.learning_rate = lambda: tensor
        try:
            yield
        finally:
            self._optimizer.learning_rate = rate

    def fill(self, read: frozenset[int]) -> None:
        """Evaluate the rate if the program reads it."""
        if self._tensor is not None and id(self._tensor) in read:
            self._tensor.fill_(self._evaluate())

    def _evaluate(self) -> float:
        if self._is_function():
            return float(self._rate())  # sync: none, it is a number
        assert self._count is not None  # noqa: S101  # `give_way` has looked
        step = torch.tensor(self._count.read(), dtype=torch.int32)
        with torch.no_grad(), keras().device("cpu"):
            return float(self._rate(step))  # sync: none, it is computed on the host

    def _tensor_now(self) -> Tensor:
        if self._tensor is None:
            iterations: Tensor = self._optimizer._iterations.value
            dtype = getattr(torch, keras().config.floatx())
            self._tensor = torch.zeros((), dtype=dtype, device=iterations.device)
        return self._tensor


def _hashable(value: Any) -> Hashable:
    if isinstance(value, list):
        return tuple(map(_hashable, cast("list[Any]", value)))
    return (type(value), value) if isinstance(value, _SCALARS) else id(value)
