"""What becomes of ``parameter.grad`` when the step that fills it is replayed.

Backward gives every parameter a new gradient tensor. Inside a program that is only an intermediate
result. Where gradients must outlive the step (accumulation over several batches, a callback that
reads them afterwards), each parameter gets one buffer with a fixed address: the program ends by
copying its gradients there, and the next program adds to it in place.
"""

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor


@final
class GradBuffers:
    """One gradient buffer per parameter, made on demand and shared by all programs of a loop."""

    def __init__(self) -> None:
        self._buffers: dict[Tensor, Tensor] = {}

    def of(self, parameter: Tensor) -> Tensor:
        """Return the parameter's buffer, shaped and placed like the parameter."""
        if parameter not in self._buffers:
            self._buffers[parameter] = torch.zeros_like(parameter, requires_grad=False)
        return self._buffers[parameter]


@final
class Gradients:
    """The gradients of one program's parameters: set aside while tracing, bound around replays.

    Args:
        parameters: Every parameter whose ``.grad`` the step may touch.
        buffers: Where gradients live between programs; None if nobody needs them after the step,
            which is faster. The step must then begin by clearing gradients.
    """

    def __init__(self, parameters: Sequence[Tensor], *, buffers: GradBuffers | None = None) -> None:
        self._parameters = tuple(parameters)
        self._buffers = buffers
        self._saved = [p.grad for p in self._parameters]
        # Which parameters have a gradient before and after the step is part of the program.
        self._before = [buffers is not None and g is not None for g in self._saved]
        self._after = [False] * len(self._parameters)

    def set_aside(self) -> None:
        """Before the trace: let the step find its buffers, or no gradients at all."""
        for parameter, present in zip(self._parameters, self._before, strict=True):
            # Made here in any case: a buffer made in the middle of a trace would be a fake one.
            buffer = self._buffers.of(parameter) if self._buffers else None
            parameter.grad = buffer if present else None

    def flush(self) -> None:
        """Last in the traced step: copy new gradients to the buffers."""
        if self._buffers is None:
            return
        for i, parameter in enumerate(self._parameters):
            grad = parameter.grad
            self._after[i] = grad is not None
            if grad is not None and grad is not self._buffers.of(parameter):
                with torch.no_grad():
                    self._buffers.of(parameter).copy_(grad)

    def restore(self) -> None:
        """After the trace: put back the gradients found before it."""
        for parameter, grad in zip(self._parameters, self._saved, strict=True):
            parameter.grad = grad
        self._saved = []

    def found(self) -> list[Tensor | None]:
        """Return the gradients that the parameters have now."""
        return [parameter.grad for parameter in self._parameters]

    def put_back(self, gradients: Sequence[Tensor | None]) -> None:
        """Give the parameters the gradients they had at `found`, or copies on any device."""
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = None if gradient is None else gradient.to(parameter.device)

    def shown(self) -> dict[int, Tensor | None]:
        """Return the gradients of the parameters, by the id of the buffer that stands for each."""
        if self._buffers is None:
            return {}
        return {id(self._buffers.of(parameter)): parameter.grad for parameter in self._parameters}

    def enter(self) -> None:
        """Before a replay: bring gradients made by other steps (eager ones) to the buffers."""
        if self._buffers is None:
            return
        for parameter, present in zip(self._parameters, self._before, strict=True):
            buffer = self._buffers.of(parameter)
            if present and parameter.grad is not buffer:
                buffer.zero_() if parameter.grad is None else buffer.copy_(parameter.grad)

    def leave(self) -> None:
        """After a replay: show the gradients where eager code looks for them, or clear old ones."""
        if self._buffers is None:
            # An eager step in between left its gradients.
            for parameter in self._parameters:
                if parameter.grad is not None:
                    parameter.grad = None
            return
        for parameter, present in zip(self._parameters, self._after, strict=True):
            parameter.grad = self._buffers.of(parameter) if present else None
