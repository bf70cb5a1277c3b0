"""What each callback adds to a step, eager and recorded, in us of CPU time on one thread.

On the guide's MLP with Keras loss, Adam and accuracy, batches of 32. The bare stack, the stack with
the callback, and the bare kernels of the callback (what it must compute, called one after the other
from a hand-written loop) run in turn. A recorded callback should add no more than 5 us and 1.3
times its kernels.

    python -m benchmarks.callbacks_cost [--rounds 15] [--backend inductor] [callback ...]
"""

import argparse
import io
import os
import statistics
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

os.environ["KERAS_BACKEND"] = "torch"
os.environ.setdefault("KERAS_TORCH_DEVICE", "cpu")

import keras
import numpy as np
import torch
from torch import Tensor, nn

import fitkit
from benchmarks.harness import Run, compare, write_result
from benchmarks.record_cases import fitkit_loop
from fitkit import Callback, Record
from tests.parity.digits import keras_mlp

EAGER_STEPS, RECORDED_STEPS = 50, 400
FREE_US, FACTOR = 5.0, 1.3
WINDOW = 4

Kernels = Callable[[list[Tensor], list[Tensor]], Callable[[int], object]]


class Entry(NamedTuple):
    """A callback to time.

    Attributes:
        make: Makes it.
        kernels: Takes copies of the weights and gradients of the model; returns a function of the
            step's number that computes what the callback must, and no more.
        beside: Makes what stands in the bare stack instead of it, where it is not the bare stack.
    """

    make: Callable[[], Sequence[Callback]]
    kernels: Kernels | None = None
    beside: Callable[[], Sequence[Callback]] = tuple


class Windows(Callback):
    """Only open and close the windows of `Accumulate`."""

    phases = frozenset({fitkit.Phase.TRAIN})

    def on_batch_begin(self, state: fitkit.State) -> None:
        """Say what `Accumulate` says."""
        position = state.batch_index % WINDOW
        state.opens_update, state.closes_update = position == 0, position == WINDOW - 1


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
    outputs, targets = torch.zeros(32, 10), torch.zeros(32, 10)

    def kernels(step: int) -> None:
        outputs.clone(), targets.clone()

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
    "KerasCallbacks": Entry(lambda: [fitkit.KerasCallbacks([keras.callbacks.TerminateOnNaN()])]),
    "LRSchedule": Entry(lambda: [fitkit.LRSchedule(fitkit.Cosine(1e-3, steps=10**6))]),
    "Limits": Entry(lambda: [fitkit.Limits(max_steps=10**9)]),
    "Predictions": Entry(lambda: [fitkit.Predictions(("train",), max_samples=3200)], keeping),
    "NaNGuard": Entry(lambda: [fitkit.NaNGuard()], guarding),
    "Seed": Entry(lambda: [fitkit.Seed(1)]),
    # watch
    "ActivationStats": Entry(lambda: [fitkit.ActivationStats()]),
    "DeviceStats": Entry(lambda: [fitkit.DeviceStats()]),
    "EventTrace": Entry(lambda: [fitkit.EventTrace()]),
    "Histograms": Entry(lambda: [fitkit.Histograms(log_dir=tempfile.mkdtemp())]),
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("callbacks", nargs="*", default=list(REGISTRY), metavar="callback")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--backend", default="inductor", choices=["interpret", "inductor"])
    arguments = parser.parse_args()
    modes: dict[str, str | None] = {"eager": None, "recorded": arguments.backend}
    result: dict[str, Any] = {}
    print(f"{'callback':16}" + "".join(f"{mode + ' adds':>16}" for mode in modes) + "   kernels")
    for name in arguments.callbacks:
        result[name] = row = {
            mode: cost(name, backend, arguments.rounds) for mode, backend in modes.items()
        }
        print(line(name, row), flush=True)
    if arguments.callbacks == list(REGISTRY):
        result["backend"] = arguments.backend
        write_result("callbacks_cost", result)


def cost(
    name: str, backend: str | None, rounds: int, steps: int | None = None, device: str = "cpu"
) -> dict[str, Any]:
    """Time one callback; the figures of `compare`, and what it adds in us per step."""
    entry, steps = REGISTRY[name], steps or (RECORDED_STEPS if backend else EAGER_STEPS)
    # Compiled ones are shared. Eager ones are not: as it trains on, Adam's moments become numbers
    # that are slow to compute with, which compiled steps flush.
    bare = bare_steps if backend else fitkit_steps
    contestants = {
        "bare": bare(entry.beside, backend, steps),
        name: fitkit_steps(entry.make, backend, steps),
        "kernels": kernel_steps(entry.kernels),
    }
    compared = compare(contestants, steps=steps, rounds=rounds, warmup_rounds=2, device=device)
    clock = "cpu_us_per_step" if device == "cpu" else "wall_us_per_step"
    times = {each: compared[clock][each]["all"] for each in contestants}
    added = [a - b for a, b in zip(times[name], times["bare"], strict=True)]
    kernels = statistics.median(times["kernels"]) if entry.kernels else 0.0
    compared["adds_us_per_step"] = statistics.median(added)
    compared["adds_p5_p95"] = np.percentile(added, [5, 95]).tolist()
    compared["kernels_us_per_step"] = kernels
    compared["allowed_us_per_step"] = FREE_US + FACTOR * kernels
    return compared


def line(name: str, row: dict[str, Any]) -> str:
    """A row of the table."""
    recorded = row["recorded"]
    within = recorded["adds_us_per_step"] <= recorded["allowed_us_per_step"]
    adds = "".join(f"{each['adds_us_per_step']:13.1f} us" for each in row.values())
    verdict = "" if within else f"   above {recorded['allowed_us_per_step']:.1f} us"
    return f"{name:16}{adds}{recorded['kernels_us_per_step']:7.1f} us{verdict}"


@cache
def bare_steps(beside: Callable[[], Sequence[Callback]], backend: Any, steps: int) -> Run:
    """The stack without the callback."""
    return fitkit_steps(beside, backend, steps)


def fitkit_steps(make: Callable[[], Sequence[Callback]], backend: Any, steps: int) -> Run:
    record = [Record(backend)] if backend else []
    loop = fitkit_loop("MLP", steps, *make(), *record)
    loop.fit(max_steps=12)  # builds, traces and compiles; whole windows

    def run(num_steps: int) -> None:
        first = loop.state.num_batches
        while loop.state.num_batches - first < num_steps:
            loop.fit(epochs=1)

    return run


def kernel_steps(kernels: Kernels | None) -> Run:
    parameters = list(keras_mlp().parameters())
    weights = [p.detach().clone() for p in parameters]
    gradients = [torch.randn_like(w) for w in weights]
    each: Callable[[int], object] = kernels(weights, gradients) if kernels else nn.Identity()

    def run(num_steps: int) -> None:
        for step in range(num_steps):
            each(step)

    return run


if __name__ == "__main__":
    main()
