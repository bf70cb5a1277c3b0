"""Looks at one more epoch: what share of it kernels ran, how often the host waited for the device.

Both only mean something on CUDA; on a CPU the same code runs and counts operations, which shows
that it works. Beside them: the device's own rate of matrix products, and the FLOPs of a step.
"""

import re
import time
import warnings
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.harness import synchronize
from benchmarks.suite.task import Task

PEAK_FLOPS = {"H200": 989e12 / 2, "H100 PCIe": 756e12 / 2, "H100": 989e12 / 2, "A100": 156e12,
              "L4": 60e12, "4090": 82.6e12}  # fmt: skip
"""Dense TF32 rates by words of the device's name, from the makers' data sheets."""
_SYNC = "called a synchronizing"


class Probe(Protocol):
    """Something that watches an epoch."""

    def end(self) -> dict[str, float]:
        """Stop watching; return figures of the epoch."""
        ...


def probe(name: str) -> Probe:
    """Begin to watch: "kernels" or "syncs"."""
    return {"kernels": KernelShare, "syncs": Syncs}[name]()


class KernelShare:
    """The time in which at least one kernel ran, over the time of the epoch."""

    def __init__(self) -> None:
        self.on_cuda = torch.cuda.is_available()
        activity = ProfilerActivity.CUDA if self.on_cuda else ProfilerActivity.CPU
        self.profiler = profile(activities=[activity])
        self.profiler.__enter__()
        self.begin = time.perf_counter()

    def end(self) -> dict[str, float]:
        """Return seconds and share."""
        synchronize("cuda" if self.on_cuda else "cpu")
        wall_s = time.perf_counter() - self.begin
        self.profiler.__exit__(None, None, None)
        results: Any = self.profiler.profiler.kineto_results
        wanted = "CUDA" if self.on_cuda else "CPU"
        spans = [
            (event.start_ns(), event.start_ns() + event.duration_ns())
            for event in results.events()
            if str(event.device_type()).endswith(wanted)
        ]
        busy_s = covered(spans) / 1e9
        return {"kernel_s": busy_s, "kernel_share": busy_s / wall_s}


def covered(spans: list[tuple[int, int]]) -> int:
    """How long at least one of the spans lasts: overlaps count once."""
    total, end = 0, 0
    for first, last in sorted(spans):
        total += max(0, last - max(first, end))
        end = max(end, last)
    return total


class Syncs:
    """How often torch says that the host waited for the device."""

    def __init__(self) -> None:
        self.caught = warnings.catch_warnings(record=True)
        self.messages: Any = self.caught.__enter__()
        warnings.simplefilter("always")
        if torch.cuda.is_available():
            torch.cuda.set_sync_debug_mode("warn")

    def end(self) -> dict[str, float]:
        """Return their number."""
        if torch.cuda.is_available():
            torch.cuda.set_sync_debug_mode("default")
        self.caught.__exit__(None, None, None)
        return {"syncs": sum(_SYNC in str(each.message) for each in self.messages)}


def flops_per_step(task: Task) -> int:
    """Countable FLOPs of forward and backward on the first batch."""
    inputs, targets = task.x[: task.batch].to(task.device), task.y[: task.batch].to(task.device)
    with FlopCounterMode(display=False) as counter:
        task.torch_loss()(task.model(inputs), targets).backward()
    task.model.zero_grad(set_to_none=True)
    return counter.get_total_flops()


def matmul_flops_per_s(device: str, size: int | None = None, repeats: int = 5) -> float:
    """The best rate of square float32 products, with the precision setting of the run."""
    size = size or (1024 if device == "cpu" else 8192)
    a, b = torch.randn(2, size, size, device=device)
    return 2 * size**3 / min(seconds(lambda: a @ b, device) for _ in range(repeats))


def seconds(run: Callable[[], object], device: str) -> float:
    synchronize(device)
    begin = time.perf_counter()
    run()
    synchronize(device)
    return time.perf_counter() - begin


def peak_flops(device_name: str) -> float | None:
    """The maker's figure, if the device is known."""
    words = set(re.split(r"[\s-]+", device_name))
    return next((rate for name, rate in PEAK_FLOPS.items() if set(name.split()) <= words), None)
