"""What each callback adds to a step, eager and recorded, in us of CPU time on one thread.

On the guide's MLP with Keras loss, Adam and accuracy, batches of 32. In every round one and the
same loop runs without the callback, with it, and with its bare kernels (a hook that computes what
the callback must, and no more, in its place: between two steps nothing is in a cache). A callback
that is part of the recorded step makes another program, and has a loop of its own. A recorded
callback should add no more than 5 us and 1.3 times its kernels.

A few callbacks look at what no recorded step keeps, and have every hundredth step run eagerly; so
do their kernels. What the method cannot resolve shows in the line of a hook that does nothing.

    python -m benchmarks.callbacks_cost [--rounds 21] [--backend inductor] [callback ...]
"""

import argparse
import io
import os
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

os.environ["KERAS_BACKEND"] = "torch"
os.environ.setdefault("KERAS_TORCH_DEVICE", "cpu")

import keras
import numpy as np
import torch
from torch import Tensor, nn

import fitkit
from benchmarks.harness import compare, write_result
from benchmarks.record_cases import fitkit_loop
from fitkit import Callback, FitLoop, Record
from fitkit.loop.callback import listens_to
from fitkit.loop.events import REGION
from fitkit.watch.event_trace import TraceRow
from fitkit.watch.spread import look_at, norms_of

EAGER_STEPS, RECORDED_STEPS = 50, 400
FREE_US, FACTOR = 5.0, 1.3
WINDOW, LOOK_EVERY = 4, 100

Kernels = Callable[[list[Tensor], list[Tensor]], Callable[[int], object]]


class Entry(NamedTuple):
    """A callback to time.

    Attributes:
        make: Makes it.
        kernels: Takes weights and gradients of the model; returns a function of the step's number
            that computes what the callback must, and no more.
        beside: Makes what stands in the bare stack instead of it, where it is not the bare stack.
        looks: Whether it has every hundredth step run eagerly.
    """

    make: Callable[[], Sequence[Callback]]
    kernels: Kernels | None = None
    beside: Callable[[], Sequence[Callback]] = tuple
    looks: bool = False


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
        self._each: Callable[[int], object] = nn.Identity()

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
    outputs, targets = torch.zeros(32, 10), torch.zeros(32 * RECORDED_STEPS, 10)
    rows, kept = torch.arange(32), list[Tensor]()

    def kernels(step: int) -> None:
        kept.append(outputs.clone())
        if len(kept) == RECORDED_STEPS:  # the end of a pass
            torch.cat(kept), targets[torch.cat([rows] * RECORDED_STEPS)]
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
    "EventTrace": Entry(lambda: [fitkit.EventTrace()], tracing),
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("callbacks", nargs="*", default=list(REGISTRY), metavar="callback")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--backend", default="inductor", choices=["interpret", "inductor"])
    arguments = parser.parse_args()
    modes: dict[str, str | None] = {"eager": None, "recorded": arguments.backend}
    result: dict[str, Any] = {}
    print(f"{'callback':16}" + "".join(f"{mode + ' adds':>16}" for mode in modes) + "   kernels")
    for name in ["nothing", *arguments.callbacks]:
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
    entry = REGISTRY.get(name, NOTHING)
    steps = steps or (RECORDED_STEPS if backend else EAGER_STEPS)
    bare = list(entry.beside())
    stacks = {"bare": bare, name: list(entry.make())}
    if entry.kernels:
        stacks["kernels"] = [*bare, *([Looks()] if entry.looks else []), Bare(entry.kernels)]
    runs = on_one_loop(stacks, backend, steps)
    compared = compare(
        {each: run.fit for each, run in runs.items()},
        steps=steps,
        rounds=rounds,
        warmup_rounds=2,
        device=device,
        before=lambda each: runs[each].enter(),
    )
    clock = "cpu_us_per_step" if device == "cpu" else "wall_us_per_step"
    times = {each: compared[clock][each]["all"] for each in stacks}
    added = differences(times[name], times["bare"])
    kernels = differences(times["kernels"], times["bare"]) if entry.kernels else [0.0]
    compared["adds_us_per_step"] = statistics.median(added)
    compared["adds_p5_p95"] = np.percentile(added, [5, 95]).tolist()
    compared["kernels_us_per_step"] = max(statistics.median(kernels), 0.0)
    compared["allowed_us_per_step"] = FREE_US + FACTOR * compared["kernels_us_per_step"]
    return compared


def differences(times: Sequence[float], bare: Sequence[float]) -> list[float]:
    """What is added, round by round."""
    return [a - b for a, b in zip(times, bare, strict=True)]


def line(name: str, row: dict[str, Any]) -> str:
    """A row of the table."""
    recorded = row["recorded"]
    within = recorded["adds_us_per_step"] <= recorded["allowed_us_per_step"]
    adds = "".join(f"{each['adds_us_per_step']:13.1f} us" for each in row.values())
    verdict = "" if within else f"   above {recorded['allowed_us_per_step']:.1f} us"
    return f"{name:16}{adds}{recorded['kernels_us_per_step']:7.1f} us{verdict}"


def on_one_loop(
    stacks: Mapping[str, Sequence[Callback]], backend: str | None, steps: int
) -> dict[str, "Stacked"]:
    """Put each list of callbacks on the same loop; on one of its own if it changes the program."""
    shared: FitLoop | None = None
    runs: dict[str, Stacked] = {}
    for name, callbacks in stacks.items():
        if shared is None or (backend and any(map(is_recorded, callbacks))):
            record = [Record(backend)] if backend else []
            loop = fitkit_loop("MLP", steps, *record)
            shared = shared or loop
        else:
            loop = shared
        runs[name] = Stacked(loop, callbacks)
    for run in runs.values():  # builds, traces and compiles; whole windows
        run.enter(num_steps=12)
    return runs


def is_recorded(callback: Callback) -> bool:
    """Whether it is part of the recorded step."""
    region = REGION[fitkit.Phase.TRAIN]
    return any(listens_to(callback, event) or event in callback.around for event in region)


class Stacked:
    """A loop, and callbacks that are attached to it while they are timed."""

    def __init__(self, loop: FitLoop, callbacks: Sequence[Callback]) -> None:
        self._loop, self._callbacks = loop, callbacks
        self._own = list(loop.callbacks)

    def enter(self, num_steps: int = 2 * WINDOW) -> None:
        """Attach them, and detach those of others; `Record` looks at what has changed."""
        there = self._loop.callbacks
        for callback in there:
            if callback not in self._own and callback not in self._callbacks:
                self._loop.detach(callback)
        self._loop.attach(*[each for each in self._callbacks if each not in there])
        self._loop.fit(max_steps=num_steps)

    def fit(self, num_steps: int) -> None:
        """Train."""
        first = self._loop.state.num_batches
        while self._loop.state.num_batches - first < num_steps:
            self._loop.fit(epochs=1)


if __name__ == "__main__":
    main()
