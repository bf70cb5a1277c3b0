"""What a checkpoint of a model of 500 MB costs: `python -m benchmarks.checkpoint [--mb 500]`.

Written beside each other, in alternating rounds, on the disk of the folder given:

- bare: `safetensors.torch.save_file` and one fsync of the same bytes;
- without digest: a whole checkpoint, with hashing switched off;
- with digest: a whole checkpoint, hashed beside the write by several threads;
- hashing alone: SHA-256 of the same bytes by one thread;
- copy: one copy of all tensors in memory;
- async: how long a step waits for a checkpoint written by a thread.
"""

import argparse
import gc
import hashlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from benchmarks.harness import machine, write_result
from fitkit.checkpoint.writer import BackgroundWriter, Copier
from fitkit.store import Content, Store, manifest

TENSOR_MB = 20


def seconds(action: Callable[[], object]) -> float:
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def bare(tensors: dict[str, Tensor], path: Path) -> None:
    safetensors.torch.save_file(tensors, path)
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def content(tensors: dict[str, Tensor], step: int) -> Content:
    return Content({"counters": {"num_updates": step, "epoch": 0}}, tensors, {})


def without_digest(action: Callable[[], object]) -> None:
    real, manifest._sha256 = manifest._sha256, lambda chunk: "0" * 64
    try:
        action()
    finally:
        manifest._sha256 = real


def hash_alone(tensors: dict[str, Tensor]) -> None:
    for tensor in tensors.values():
        hashlib.sha256(memoryview(tensor.numpy()).cast("B")).digest()


def measure(folder: Path, megabytes: int, rounds: int) -> dict[str, list[float]]:
    size = TENSOR_MB * 1_000_000 // 4
    tensors = {f"layer{i:03d}": torch.randn(size) for i in range(megabytes // TENSOR_MB)}
    store, times = Store(folder), {}
    writer, copier = BackgroundWriter(), Copier()
    spare = {name: torch.empty_like(tensor) for name, tensor in tensors.items()}

    def copy() -> None:
        for name, tensor in tensors.items():
            spare[name].copy_(tensor)

    def background() -> None:
        taken = copier.copy(content(tensors, 3))
        writer.start(lambda: store.write(taken))

    contestants: dict[str, Callable[[], object]] = {
        "bare": lambda: bare(tensors, folder / "bare.safetensors"),
        "without digest": lambda: without_digest(lambda: store.write(content(tensors, 1))),
        "with digest": lambda: store.write(content(tensors, 2)),
        "hashing alone": lambda: hash_alone(tensors),
        "copy": copy,
        "async": background,
    }
    for index in range(rounds + 1):
        for name, action in contestants.items():
            gc.collect()
            os.sync()
            taken = seconds(action)
            writer.wait()
            store.delete(store.names())
            (folder / "bare.safetensors").unlink(missing_ok=True)
            if index:  # the first round warms up
                times.setdefault(name, []).append(taken)
    return times


def summary(times: dict[str, list[float]], megabytes: int) -> dict[str, Any]:
    median = {name: statistics.median(each) for name, each in times.items()}
    bound = max(median["bare"], median["hashing alone"] / 2)
    return {
        "megabytes": megabytes,
        "seconds": {name: [round(t, 4) for t in each] for name, each in times.items()},
        "median_s": {name: round(value, 4) for name, value in median.items()},
        "without digest / bare": round(median["without digest"] / median["bare"], 3),
        "with digest / max(bare, half of hashing)": round(median["with digest"] / bound, 3),
        "async / copy": round(median["async"] / median["copy"], 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dir", type=Path, default=None)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=given.dir) as folder:
        result = summary(measure(Path(folder), given.mb, given.rounds), given.mb)
    for name, value in result.items():
        if name != "seconds":
            print(f"{name}: {value}")
    write_result("checkpoint", {**result, "machine": machine("cpu")})


if __name__ == "__main__":
    main()
