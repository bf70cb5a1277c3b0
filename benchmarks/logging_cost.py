"""What logging to TensorBoard costs: the same training without it, with curves, with everything.

The guide's MLP with Keras loss, Adam and accuracy, batches of 32, in alternating rounds. Scalars of
every step may cost 3 % of an eager step, and 10 us of a recorded one; everything at its default
intervals 10 % of an eager step. The rounds of "everything" hold whole epochs with a validation.

    python -m benchmarks.logging_cost [--rounds 15] [--backend inductor] [--steps 400]
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

os.environ["KERAS_BACKEND"] = "torch"
os.environ["KERAS_TORCH_DEVICE"] = "cpu"

import keras

from benchmarks.harness import Run, compare, table, write_result
from benchmarks.record_cases import BATCH, digits
from fitkit import Callback, FitLoop, Record, Stack, TensorBoard, TensorLoader, supervised
from tests.parity import hand_loops as hand
from tests.parity.digits import keras_mlp

SCALARS_SHARE, SCALARS_US, EVERYTHING_SHARE = 1.03, 10.0, 1.10

Attached = Callable[[str], Sequence[Callback] | Stack]

CONTESTANTS: dict[str, Attached] = {
    "no logging": lambda folder: (),
    "scalars": lambda folder: (TensorBoard(folder),),
    "everything": lambda folder: TensorBoard.everything(folder, image_shape=(28, 28)),
}


def trained(attached: Attached, backend: str | None, steps: int) -> Run:
    """A loop that trains on and on; every contestant has the same, and its own run directory."""
    keras.utils.set_random_seed(1)
    stack = supervised(
        loss=keras.losses.CategoricalCrossentropy(from_logits=True),
        optimizer=keras.optimizers.Adam(hand.LEARNING_RATE),
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
    )
    folder = tempfile.mkdtemp()
    loop = FitLoop(
        keras_mlp(),
        TensorLoader(*digits(steps), batch_size=BATCH, shuffle=True),
        TensorLoader(*digits(max(1, steps // 5)), batch_size=BATCH),
        run_dir=folder,
    )
    record: Any = [Record(backend)] if backend else []
    loop.attach(*stack, *attached(folder), *record)
    loop.fit(epochs=1)  # builds, traces and compiles

    def run(num_steps: int) -> None:
        first = loop.state.num_batches
        while loop.state.num_batches - first < num_steps:
            loop.fit(epochs=1)

    return run


def measured(backend: str | None, steps: int, rounds: int) -> dict[str, Any]:
    """The figures of one way to run the step, with what each contestant adds in us."""
    runs = {name: trained(attached, backend, steps) for name, attached in CONTESTANTS.items()}
    result = compare(runs, steps=steps, rounds=rounds, warmup_rounds=2)
    times = {name: result["cpu_us_per_step"][name]["all"] for name in runs}
    result["adds_us_per_step"] = {
        name: statistics.median(
            [a - b for a, b in zip(times[name], times["no logging"], strict=True)]
        )
        for name in list(runs)[1:]
    }
    return result


def verdicts(result: dict[str, Any]) -> list[str]:
    """One line per bar: what was measured, what is allowed."""
    eager, recorded = result["eager"], result["recorded"]
    scalars = eager["cpu_ratio"]["scalars"]["median"]
    everything = eager["cpu_ratio"]["everything"]["median"]
    added = recorded["adds_us_per_step"]["scalars"]
    return [
        _verdict("scalars, eager", 100 * (scalars - 1), 100 * (SCALARS_SHARE - 1), "%"),
        _verdict("scalars, recorded", added, SCALARS_US, "us"),
        _verdict("everything, eager", 100 * (everything - 1), 100 * (EVERYTHING_SHARE - 1), "%"),
    ]


def _verdict(what: str, value: float, allowed: float, unit: str) -> str:
    says = "holds" if value <= allowed else "ABOVE"
    return f"{what:20} {value:6.2f} {unit:2} of at most {allowed:.0f} {unit}: {says}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--backend", default="inductor", choices=["interpret", "inductor"])
    parser.add_argument("--dry", action="store_true", help="write no result file")
    arguments = parser.parse_args()
    result: dict[str, Any] = {"backend": arguments.backend}
    for mode, backend in {"eager": None, "recorded": arguments.backend}.items():
        result[mode] = measured(backend, arguments.steps, arguments.rounds)
        print(f"{mode}\n{table(result[mode])}\n", flush=True)
    print("\n".join(verdicts(result)))
    if not arguments.dry:
        write_result("logging_cost", result)


if __name__ == "__main__":
    main()
