"""What callbacks cannot do without: bare kernels, and callbacks that compute them and no more."""

import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager

import keras
import torch
from torch import Tensor

import fitkit
from fitkit import Callback
from fitkit.watch.event_trace import TraceRow
from fitkit.watch.spread import look_at, norms_of

WINDOW, LOOK_EVERY, PASS_STEPS = 4, 100, 1563

Kernels = Callable[[list[Tensor], list[Tensor]], Callable[[int], object]]


def same(step: int) -> object:
    """Every step is like the others."""
    return None


def in_window(step: int) -> object:
    """A step opens a window, closes it, or neither."""
    return min(step % WINDOW, 1) + (step % WINDOW == WINDOW - 1)


def is_looked_at(step: int) -> bool:
    """Not the first step of a block: that one is slower than others."""
    return step % LOOK_EVERY == LOOK_EVERY // 2


class Windows(Callback):
    """Only open and close the windows of `Accumulate`; gradients add up by themselves."""

    phases = frozenset({fitkit.Phase.TRAIN})
    only_watches = True

    def on_batch_begin(self, state: fitkit.State) -> None:
        """Say what `Accumulate` says."""
        position = state.batch_index % WINDOW
        state.opens_update, state.closes_update = position == 0, position == WINDOW - 1


class Looks(Callback):
    """Have steps run eagerly."""

    phases = frozenset({fitkit.Phase.TRAIN})
    only_watches = True

    def on_batch_begin(self, state: fitkit.State) -> None:
        """Ask for it."""
        if is_looked_at(state.batch_index):
            state.request_eager()


class Bare(Callback):
    """Compute kernels after each step, on gradients that are made up; nothing without any."""

    phases = frozenset({fitkit.Phase.TRAIN})
    only_watches = True

    def __init__(self, kernels: Kernels | None) -> None:
        self._make = kernels
        self._each: Callable[[int], object] = int

    def on_fit_begin(self, state: fitkit.State) -> None:
        """Make the kernels for the weights of the model."""
        if self._make is not None:
            weights = [weight.detach() for weight in trained(state)]
            self._each = self._make(weights, [torch.randn_like(weight) for weight in weights])
            self._make = None

    def on_batch_end(self, state: fitkit.State) -> None:
        """Compute."""
        self._each(state.batch_index)


class InStep(Callback):
    """Compute kernels on the gradients of a step, within it, so that they are recorded."""

    phases = frozenset({fitkit.Phase.TRAIN})
    only_watches = True

    def __init__(self, kernels: Callable[[list[Tensor]], object], *, spin_us: float = 0.0) -> None:
        self._kernels, self._spin_ns = kernels, int(spin_us * 1e3)
        self._weights: list[Tensor] = []

    def on_fit_begin(self, state: fitkit.State) -> None:
        """List the weights."""
        self._weights = self._weights or trained(state)

    def on_grads_ready(self, state: fitkit.State) -> None:
        """Compute."""
        self._kernels([weight.grad for weight in self._weights if weight.grad is not None])

    def on_batch_end(self, state: fitkit.State) -> None:
        """Let a known time go by."""
        end = time.perf_counter_ns() + self._spin_ns
        while self._spin_ns and time.perf_counter_ns() < end:
            pass


class Guarding(Callback):
    """Take an update back, within the step, where the sum of a gradient is not finite."""

    phases = frozenset({fitkit.Phase.TRAIN})
    only_watches = True

    def __init__(self) -> None:
        self.around = {fitkit.Event.APPLY: self._guarded}
        self._weights: list[Tensor] = []

    def attach(self, loop: fitkit.FitLoop) -> None:
        """Keep the optimizer."""
        optimizers = [getattr(each, "optimizer", None) for each in loop.callbacks]
        self._optimizer = next(each for each in optimizers if each is not None)

    def on_fit_begin(self, state: fitkit.State) -> None:
        """List the weights."""
        self._weights = self._weights or trained(state)

    @contextmanager
    def _guarded(self) -> Generator[None]:
        held = [*self._weights, *(variable.value for variable in self._optimizer.variables)]
        before = [tensor.detach().clone() for tensor in held]
        sums = [weight.grad.sum() for weight in self._weights if weight.grad is not None]
        yield
        good = torch.stack(sums).isfinite().all()
        for tensor, old in zip(held, before, strict=True):
            torch.where(good, tensor, old, out=tensor)


def trained(state: fitkit.State) -> list[Tensor]:
    """Return the weights that are trained."""
    return [parameter for parameter in state.model.parameters() if parameter.requires_grad]


def averaged(gradients: list[Tensor]) -> None:
    torch._foreach_div_(gradients, float(WINDOW))


def norm_clipped(gradients: list[Tensor]) -> None:
    norm = torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()
    torch._foreach_mul_(gradients, (1.0 / (norm + 1e-6)).clamp(max=1.0))


def value_clipped(gradients: list[Tensor]) -> None:
    torch._foreach_clamp_max_(gradients, 0.5)
    torch._foreach_clamp_min_(gradients, -0.5)


def averaging(weights: list[Tensor], gradients: list[Tensor]) -> Callable[[int], object]:
    averages = [torch.zeros_like(w) for w in weights]
    return lambda step: torch._foreach_lerp_(averages, weights, 0.001)


def keeping(weights: list[Tensor], gradients: list[Tensor]) -> Callable[[int], object]:
    outputs, targets = torch.zeros(32, 10), torch.zeros(32 * PASS_STEPS, 10)
    rows, kept = torch.arange(32), list[Tensor]()

    def kernels(step: int) -> None:
        kept.append(outputs.clone())
        if len(kept) == PASS_STEPS:  # the end of a pass
            torch.cat(kept), targets[torch.cat([rows] * PASS_STEPS)]
            kept.clear()

    return kernels


def scheduling(weights: list[Tensor], gradients: list[Tensor]) -> Callable[[int], object]:
    rate, schedule = torch.zeros(()), fitkit.Cosine(1e-3, steps=10**6)
    return lambda step: rate.fill_(schedule(step))


def calling_keras(weights: list[Tensor], gradients: list[Tensor]) -> Callable[[int], object]:
    total, weight = torch.ones((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
    callback = keras.callbacks.TerminateOnNaN()
    return lambda step: callback.on_train_batch_end(step, {"loss": total.item() / weight.item()})


def tracing(weights: list[Tensor], gradients: list[Tensor]) -> Callable[[int], object]:
    clock, rows = time.perf_counter_ns, deque[TraceRow](maxlen=10_000)

    def kernels(step: int) -> None:
        for event in (fitkit.Event.BATCH_BEGIN, fitkit.Event.BATCH_END):  # the hooks of this stack
            row = TraceRow(event, "", "train", 0, step)
            begin = clock()
            row.us = row.own_us = (clock() - begin) / 1e3
            rows.append(row)

    return kernels


def looking_at_layers(weights: list[Tensor], gradients: list[Tensor]) -> Callable[[int], object]:
    outputs = [torch.randn(32, len(weight)) for weight in weights if weight.dim() == 1]

    def kernels(step: int) -> None:
        for each in outputs if is_looked_at(step) else ():
            std, mean = torch.std_mean(each, correction=0)
            torch.stack([mean, std, each.any(0).logical_not().mean(dtype=torch.float32)])

    return kernels


def looking_at_weights(weights: list[Tensor], gradients: list[Tensor]) -> Callable[[int], object]:
    def kernels(step: int) -> None:
        if is_looked_at(step):
            before = [weight.clone() for weight in weights]
            look_at(weights), look_at(gradients), norms_of(before), norms_of(gradients)

    return kernels
