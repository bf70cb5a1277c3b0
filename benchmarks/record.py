"""CPU time of a step: recorded by fitkit, eager, by hand, by Keras; and the floor below them all.

The workload is the guide's MLP with loss and accuracy, batches of 32 digit-like images, `Metrics`
and `Throughput` attached. Beside it three other networks, recorded against eager.

    python -m benchmarks.record [--rounds 9] [--threads 1] [--cases MLP CNN transformer LSTM]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from typing import Any

os.environ["KERAS_BACKEND"] = "torch"
os.environ["KERAS_TORCH_DEVICE"] = "cpu"

import torch

from benchmarks import record_cases as cases
from benchmarks.harness import Run, compare, table, write_result
from benchmarks.record_agreement import agreement
from benchmarks.record_checks import first_use, peak_ratio

STEPS = {"MLP": 1000}  # a pass of a few hundred small steps would show what a pass costs
OTHER_STEPS = 400


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="of the MLP; half for the others")
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--cases", nargs="*", default=list(cases.CASES))
    parser.add_argument("--first-use", action="store_true", help="print first-use cost, and end")
    arguments = parser.parse_args()
    if arguments.first_use:
        print(json.dumps(first_use()))
        return
    result: dict[str, Any] = {}
    for threads in arguments.threads:
        for case in arguments.cases if threads == 1 else arguments.cases[:1]:
            name = f"{case}, {threads} thread{'s' * (threads > 1)}"
            torch.set_num_threads(threads)
            steps = STEPS.get(case, OTHER_STEPS)
            rounds = arguments.rounds if case in STEPS else (arguments.rounds + 1) // 2
            runs = contestants(case, steps)
            result[name] = compare(runs, steps=steps, rounds=rounds, threads=threads)
            print(f"{name}\n{table(result[name])}\n", flush=True)
    torch.set_num_threads(1)
    result["agreement"] = {case: agreement(case) for case in arguments.cases}
    result["peak_memory_ratio"] = peak_ratio()
    result["first_use"] = first_uses()
    print({key: result[key] for key in ("agreement", "peak_memory_ratio", "first_use")})
    write_result("record", result)


def contestants(case: str, steps: int) -> dict[str, Run]:
    """The baseline comes first: the hand loop for the MLP, eager fitkit for the others."""
    ours = {
        "fitkit eager": cases.fitkit_steps(case, steps),
        "Record interpret": cases.fitkit_steps(case, steps, "interpret"),
        "Record inductor": cases.fitkit_steps(case, steps, "inductor"),
    }
    if case != "MLP":
        return ours
    return {
        "hand loop": cases.hand_loop(steps),
        "Keras fit": cases.keras_fit(steps),
        "torch Sequential, fused Adam": cases.torch_loop(steps),
        **ours,
        "bare kernels": cases.bare_kernels(),
    }


def first_uses() -> dict[str, Any]:
    """First-use cost with an empty compiler cache, and in a second process that finds it filled."""
    command = [sys.executable, "-m", "benchmarks.record", "--first-use"]
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": cache}
        outputs = [
            subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
            for _ in range(2)
        ]
    first, second = (json.loads(output.stdout) for output in outputs)
    return {"this process": first, "second process": second}


if __name__ == "__main__":
    main()
