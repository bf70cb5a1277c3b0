"""The callbacks whose cost is measured, and the bare kernels each of them is held against."""

import io
import tempfile
from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras

import fitkit
from benchmarks.callback_kernels import (
    WINDOW,
    Bare,
    Guarding,
    InStep,
    Looks,
    Windows,
    averaged,
    averaging,
    calling_keras,
    in_window,
    is_looked_at,
    keeping,
    looking_at_layers,
    looking_at_weights,
    norm_clipped,
    same,
    scheduling,
    tracing,
    value_clipped,
)
from fitkit import Callback
from fitkit.loop.callback import listens_to
from fitkit.loop.events import REGION


class Entry(NamedTuple):
    """A callback to time.

    Attributes:
        make: Makes it.
        kernels: Makes what computes what it must, and no more, in its place: in the recorded step
            or beside it.
        beside: Makes what stands in the bare stack, and beside the kernels.
        by_steps: Whether it takes time elsewhere than in its own hooks beside a recorded step; it
            is judged by whole steps then.
        kind: Tells steps apart that take different times.
        free_us: What it may add to 1.3 times its kernels.
    """

    make: Callable[[], Sequence[Callback]]
    kernels: Callable[[], Callback] | None = None
    beside: Callable[[], Sequence[Callback]] = tuple
    by_steps: bool = False
    kind: Callable[[int], object] = same
    free_us: float = 5.0


def is_recorded(callback: Callback) -> bool:
    """Whether it is part of the recorded step."""
    region = REGION[fitkit.Phase.TRAIN]
    return any(listens_to(callback, event) or event in callback.around for event in region)


REGISTRY: dict[str, Entry] = {
    # tune
    "Accumulate": Entry(
        lambda: [fitkit.Accumulate(WINDOW)],
        lambda: InStep(averaged),
        beside=lambda: [Windows()],
        by_steps=True,
        kind=in_window,
    ),
    "ClipGradNorm": Entry(
        lambda: [fitkit.ClipGradNorm(1.0)], lambda: InStep(norm_clipped), by_steps=True
    ),
    "ClipGradValue": Entry(
        lambda: [fitkit.ClipGradValue(0.5)], lambda: InStep(value_clipped), by_steps=True
    ),
    "EMA": Entry(lambda: [fitkit.EMA(0.999)], lambda: Bare(averaging)),
    "EarlyStopping": Entry(lambda: [fitkit.EarlyStopping("loss", patience=10**6)]),
    "Freeze": Entry(lambda: [fitkit.Freeze("dense*", start=10**9)]),
    "KerasCallbacks": Entry(
        lambda: [fitkit.KerasCallbacks([keras.callbacks.TerminateOnNaN()])],
        lambda: Bare(calling_keras),
    ),
    "LRSchedule": Entry(
        lambda: [fitkit.LRSchedule(fitkit.Cosine(1e-3, steps=10**6))], lambda: Bare(scheduling)
    ),
    "Limits": Entry(lambda: [fitkit.Limits(max_steps=10**9)]),
    "Predictions": Entry(lambda: [fitkit.Predictions(("train",))], lambda: Bare(keeping)),
    "NaNGuard": Entry(lambda: [fitkit.NaNGuard()], Guarding, by_steps=True),
    "Seed": Entry(lambda: [fitkit.Seed(1)]),
    # watch
    "ActivationStats": Entry(
        lambda: [fitkit.ActivationStats()],
        lambda: Bare(looking_at_layers),
        beside=lambda: [Looks()],
        by_steps=True,
        kind=is_looked_at,
    ),
    "DeviceStats": Entry(lambda: [fitkit.DeviceStats()]),
    "EventTrace": Entry(lambda: [fitkit.EventTrace()], lambda: Bare(tracing), by_steps=True),
    "Histograms": Entry(
        lambda: [fitkit.Histograms(log_dir=tempfile.mkdtemp())],
        lambda: Bare(looking_at_weights),
        beside=lambda: [Looks()],
        kind=is_looked_at,
    ),
    "PrintLog": Entry(lambda: [fitkit.PrintLog(file=io.StringIO())]),
    "ProgressBar": Entry(lambda: [fitkit.ProgressBar(file=io.StringIO())]),
    "TensorBoard": Entry(lambda: [fitkit.TensorBoard(tempfile.mkdtemp())], free_us=10.0),
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

CHECKS: dict[str, Entry] = {
    "nothing": Entry(lambda: [InStep(list)], by_steps=True),
    "a spin of 5 us": Entry(lambda: [InStep(list, spin_us=5)], by_steps=True),
    "a spin of 10 us": Entry(lambda: [InStep(list, spin_us=10)], by_steps=True),
    "1 eager step in 100": Entry(lambda: [Looks()], by_steps=True, kind=is_looked_at),
}
"""What the method resolves: hooks that do nothing, or let a known time go by, in their own loops.
And what an eager step takes now and then, on top of which come those that look at one."""
