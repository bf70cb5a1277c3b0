"""The callbacks whose cost is measured, and for each the bare kernels it cannot do without."""

import io
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras
import torch
from torch import Tensor

import fitkit
from fitkit import Callback
from fitkit.loop.callback import listens_to
from fitkit.loop.events import REGION
from fitkit.watch.event_trace import TraceRow
from fitkit.watch.spread import look_at, norms_of

WINDOW, LOOK_EVERY, PASS_STEPS = 4, 100, 1563

Kernels = Callable[[list[Tensor], list[Tensor]], Callable[[int], object]]


class Entry(NamedTuple):
    """A callback to time.

    Attributes:
        make: Makes it.
        kernels: Takes weights and gradients of the model; returns a function of the step's number
            that computes what the callback must, and no more.
        beside: Makes what stands in the bare stack instead of it, where it is not the bare stack.
        looks: Whether it has every hundredth step run eagerly.
        elsewhere: Whether it takes time in the hooks of others.
    """

    make: Callable[[], Sequence[Callback]]
    kernels: Kernels | None = None
    beside: Callable[[], Sequence[Callback]] = tuple
    looks: bool = False
    elsewhere: bool = False

    @property
    def is_in_hooks(self) -> bool:
        """Whether all that it takes beside a recorded step goes by in its own hooks."""
        return not (self.looks or self.elsewhere or any(map(is_recorded, self.make())))


def is_recorded(callback: Callback) -> bool:
    """Whether it is part of the recorded step."""
    region = REGION[fitkit.Phase.TRAIN]
    return any(listens_to(callback, event) or event in callback.around for event in region)


class Windows(Callback):
    """Only open and close the windows of `Accumulate`."""

    phases = frozenset({fitkit.Phase.TRAIN})

    def on_batch_begin(self, state: fitkit.State) -> None:
        """Say what `Accumulate` says."""
        position = state.batch_index % WINDOW
        state.opens_update, state.closes_update = position == 0, position == WINDOW - 1


class Bare(Callback):
    """Compute the bare kernels of a callback after each step, and nothing without any."""

    phases = frozenset({fitkit.Phase.TRAIN})
    only_watches = True

    def __init__(self, kernels: Kernels | None) -> None:
        self._make = kernels
        self._each: Callable[[int], object] = int

    def on_fit_begin(self, state: fitkit.State) -> None:
        """Make the kernels for the weights of the model."""
        if self._make is not None:
            parameters: list[Tensor] = [p for p in state.model.parameters() if p.requires_grad]
            weights = [parameter.detach() for parameter in parameters]
            self._each = self._make(weights, [torch.randn_like(weight) for weight in weights])
            self._make = None

    def on_batch_end(self, state: fitkit.State) -> None:
        """Compute."""
        self._each(state.batch_index)


class Looks(Callback):
    """Have steps run eagerly."""

    phases = frozenset({fitkit.Phase.TRAIN})
    only_watches = True

    def on_batch_begin(self, state: fitkit.State) -> None:
        """Ask for it."""
        if state.batch_index % LOOK_EVERY == 0:
            state.request_eager()


def accumulation(weights: list[Tensor], gradients: list[Tensor]) -> Callable[[int], object]:
    sums, divisor = [torch.zeros_like(g) for g in gradients], torch.tensor(float(WINDOW))

    def kernels(step: int) -> None:
        if step % WINDOW == 0:
            torch._foreach_copy_(sums, gradients)
        else:
            torch._foreach_add_(sums, gradients)
        if step % WINDOW == WINDOW - 1:
            torch._foreach_div_(sums, divisor)

    return kernels


def norm_clipping(weights: list[Tensor], gradients: list[Tensor]) -> Callable[[int], object]:
    def kernels(step: int) -> None:
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        torch._foreach_mul_(gradients, (1.0 / (norm + 1e-6)).clamp(max=1.0))

    return kernels


def value_clipping(weights: list[Tensor], gradients: list[Tensor]) -> Callable[[int], object]:
    def kernels(step: int) -> None:
        torch._foreach_clamp_max_(gradients, 0.5)
        torch._foreach_clamp_min_(gradients, -0.5)

    return kernels


def averaging(weights: list[Tensor], gradients: list[Tensor]) -> Callable[[int], object]:
    averages = [torch.zeros_like(w) for w in weights]
    return lambda step: torch._foreach_lerp_(averages, weights, 0.001)


def guarding(weights: list[Tensor], gradients: list[Tensor]) -> Callable[[int], object]:
    slots = [w.clone() for w in (*weights, *weights)]

    def kernels(step: int) -> None:
        held = [*weights, *slots]
        before = [tensor.clone() for tensor in held]
        good = torch.stack([gradient.sum() for gradient in gradients]).isfinite().all()
        for tensor, old in zip(held, before, strict=True):
            torch.where(good, tensor, old, out=tensor)

    return kernels


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
        for each in outputs if step % LOOK_EVERY == 0 else ():
            std, mean = torch.std_mean(each, correction=0)
            torch.stack([mean, std, (each == 0).all(0).float().mean()])

    return kernels


def looking_at_weights(weights: list[Tensor], gradients: list[Tensor]) -> Callable[[int], object]:
    def kernels(step: int) -> None:
        if step % LOOK_EVERY == 0:
            before = [weight.clone() for weight in weights]
            look_at(weights), look_at(gradients), norms_of(before), norms_of(gradients)

    return kernels


REGISTRY: dict[str, Entry] = {
    # tune
    "Accumulate": Entry(
        lambda: [fitkit.Accumulate(WINDOW)], accumulation, beside=lambda: [Windows()]
    ),
    "ClipGradNorm": Entry(lambda: [fitkit.ClipGradNorm(1.0)], norm_clipping),
    "ClipGradValue": Entry(lambda: [fitkit.ClipGradValue(0.5)], value_clipping),
    "EMA": Entry(lambda: [fitkit.EMA(0.999)], averaging),
    "EarlyStopping": Entry(lambda: [fitkit.EarlyStopping("loss", patience=10**6)]),
    "Freeze": Entry(lambda: [fitkit.Freeze("dense*", start=10**9)]),
    "KerasCallbacks": Entry(
        lambda: [fitkit.KerasCallbacks([keras.callbacks.TerminateOnNaN()])], calling_keras
    ),
    "LRSchedule": Entry(lambda: [fitkit.LRSchedule(fitkit.Cosine(1e-3, steps=10**6))], scheduling),
    "Limits": Entry(lambda: [fitkit.Limits(max_steps=10**9)]),
    "Predictions": Entry(lambda: [fitkit.Predictions(("train",))], keeping),
    "NaNGuard": Entry(lambda: [fitkit.NaNGuard()], guarding),
    "Seed": Entry(lambda: [fitkit.Seed(1)]),
    # watch
    "ActivationStats": Entry(lambda: [fitkit.ActivationStats()], looking_at_layers, looks=True),
    "DeviceStats": Entry(lambda: [fitkit.DeviceStats()]),
    "EventTrace": Entry(lambda: [fitkit.EventTrace()], tracing, elsewhere=True),
    "Histograms": Entry(
        lambda: [fitkit.Histograms(log_dir=tempfile.mkdtemp())], looking_at_weights, looks=True
    ),
    "PrintLog": Entry(lambda: [fitkit.PrintLog(file=io.StringIO())]),
    "ProgressBar": Entry(lambda: [fitkit.ProgressBar(file=io.StringIO())]),
    "TensorBoard": Entry(lambda: [fitkit.TensorBoard(tempfile.mkdtemp())]),
    "Throughput": Entry(lambda: [fitkit.Throughput()]),
}
"""By class name; a test holds that every callback of tune/ and watch/ is here or below."""

LEFT_OUT = {
    "Benchmark": "it measures by itself, and stops the run",
    "CSVLogger": "it writes once per epoch",
    "Curves": "it counts in validation, and draws at its end",
    "Graph": "it calls the model once more, in the first step",
    "HParams": "it writes once per epoch",
    "ImageGrid": "it draws at the end of an epoch, at the price of what it draws",
    "Images": "it looks at validation, and draws at its end",
    "JSONLLogger": "it writes once per epoch",
    "MixedPrecision": "it changes what the step computes: a difference is not its own cost",
    "ModelSummary": "it looks at the first step only",
    "Profile": "it times and traces a few steps, and is away in all others",
    "RunText": "it writes once per run",
}

NOTHING = Entry(lambda: [Bare(None)])
"""A hook that does nothing: what the method cannot resolve."""
