"""Compare contestants fairly in one process: alternating rounds, ratios within a round.

    result = compare({"hand loop": hand_run, "fitkit": fitkit_run}, steps=100, rounds=15)
    print(table(result))
    write_result("step_overhead", result)

A contestant is `run(num_steps)`: it trains that many steps and may keep its state between calls.
"""

import gc
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "keras", "numpy")  # fitkit itself is told by its commit

Run = Callable[[int], object]
Result = dict[str, Any]


def compare(
    contestants: Mapping[str, Run],
    *,
    steps: int = 100,
    rounds: int = 15,
    warmup_rounds: int = 1,
    threads: int = 1,
    device: str = "cpu",
    before: Callable[[str], object] = str,
) -> Result:
    """Time every contestant once per round; the first is the baseline of the ratios.

    Args:
        contestants: name -> run(num_steps).
        steps: training steps per contestant and round.
        rounds: measured rounds.
        warmup_rounds: rounds thrown away first.
        threads: torch threads; CPU time is that of the whole process, all threads together.
        device: where the contestants compute; "cuda" is synchronized around each run.
        before: called with the name of a contestant before each of its runs, untimed.

    Returns:
        Per contestant the times in us per step (median, p5, p95, and all of them) and the ratios
        to the baseline of the same round; beside them what they were measured on.
    """
    torch.set_num_threads(threads)
    names = list(contestants)
    cpu: dict[str, list[float]] = {name: [] for name in names}
    wall: dict[str, list[float]] = {name: [] for name in names}
    for index in range(warmup_rounds + rounds):
        # The order turns around every round, so that neither side always runs on the warmer cache.
        for name in names if index % 2 == 0 else reversed(names):
            before(name)
            cpu_us, wall_us = time_steps(contestants[name], steps, device)
            if index >= warmup_rounds:
                cpu[name].append(cpu_us)
                wall[name].append(wall_us)
    return {
        "steps": steps,
        "rounds": rounds,
        "warmup_rounds": warmup_rounds,
        "baseline": names[0],
        "cpu_us_per_step": {name: spread(cpu[name]) for name in names},
        "wall_us_per_step": {name: spread(wall[name]) for name in names},
        "cpu_ratio": {name: spread(ratios(cpu[name], cpu[names[0]])) for name in names[1:]},
        "wall_ratio": {name: spread(ratios(wall[name], wall[names[0]])) for name in names[1:]},
        "machine": machine(device),
    }


def time_steps(run: Run, steps: int, device: str) -> tuple[float, float]:
    """CPU time of the process and wall time of `run(steps)`, both in us per step."""
    gc.collect()  # one contestant does not pay for the other's garbage
    synchronize(device)
    cpu, wall = time.process_time(), time.perf_counter()
    run(steps)
    synchronize(device)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return cpu / steps * 1e6, wall / steps * 1e6


def synchronize(device: str) -> None:
    """Wait for the device, so that queued work is counted where it was asked for."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def ratios(values: list[float], baseline: list[float]) -> list[float]:
    """Each value over the baseline of the same round: below 1 is faster than the baseline."""
    return [value / base for value, base in zip(values, baseline, strict=True)]


def spread(values: list[float]) -> Result:
    """Median, 5th and 95th percentile, and the values themselves."""
    p5, p95 = np.percentile(values, [5, 95])
    return {
        "median": statistics.median(values),
        "p5": float(p5),
        "p95": float(p95),
        "all": [float(f"{value:.5g}") for value in values],
    }


def machine(device: str) -> Result:
    """What the figures were measured on; load_average says how busy it was with other work."""
    on_cuda = device.startswith("cuda")
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "device": torch.cuda.get_device_name(device) if on_cuda else device,
        "cpu": cpu_name(),
        "cpu_count": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in PACKAGES},
    }


def commit() -> str:
    """The checked-out commit, with "+changes" if tracked files but results differ from it."""
    head = git("rev-parse", "--short=12", "HEAD").stdout.strip() or "unknown"
    changed = git("diff", "--quiet", "HEAD", "--", ".", ":(exclude)benchmarks/results").returncode
    return f"{head}+changes" if changed else head


def git(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run git in the repository of this file."""
    root = Path(__file__).parents[1]
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)


def cpu_name() -> str:
    """The processor's model name, as the kernel or the platform tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def table(result: Result) -> str:
    """The result as lines to read: CPU and wall time per step, ratio to the baseline."""
    lines = [f"{'contestant':30}{'CPU us/step':>13}{'wall us/step':>14}  CPU ratio (p5 to p95)"]
    for name, cpu in result["cpu_us_per_step"].items():
        ratio = result["cpu_ratio"].get(name)
        compared = "{median:.3f} ({p5:.3f} to {p95:.3f})".format(**ratio) if ratio else "baseline"
        wall = result["wall_us_per_step"][name]
        lines.append(f"{name:30}{cpu['median']:13.1f}{wall['median']:14.1f}  {compared}")
    return "\n".join(lines)


def write_result(name: str, result: Result) -> Path:
    """Write the result to results/<name>.json and return the path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path
