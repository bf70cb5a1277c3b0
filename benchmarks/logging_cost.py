"""What logging to TensorBoard costs: the same training without it, with curves, with everything.

The guide's MLP with Keras loss, Adam and accuracy, in epochs as long as the guide's: 1,563 updates
of 32 samples, then a validation of 313 batches. All contestants train an epoch in turn, round after
round; of each the CPU time is taken of the training pass (`step`, per update), of all that follows
in the epoch (`epoch`: validation, pictures, files) and of both (`whole`). Beginning and end of a
call of `fit` lie outside: a run has one, however long it is. What they cost is told as `run`: a new
loop that is fitted for one update, with the files, texts and drawing of the graph that go with it.
What a step costs is the difference of two contestants; `hooks` is the wall time per step that goes
by in the hooks of `TensorBoard` themselves, files and ends of epochs included, which is told more
exactly where other work disturbs.

Scalars of every step may cost 3 % of whole eager epochs, and 10 us of a recorded step; everything
at its default intervals 10 % of whole eager epochs. With shorter epochs the pictures weigh more:
for an epoch of n updates everything adds n times what it adds to `step`, and what it adds to
`epoch`.

    python -m benchmarks.logging_cost [--rounds 11] [--backend inductor] [--mode eager]
"""

import argparse
import gc
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

os.environ["KERAS_BACKEND"] = "torch"
os.environ["KERAS_TORCH_DEVICE"] = "cpu"

import keras
import torch

from benchmarks.harness import machine, ratios, spread, write_result
from benchmarks.record_cases import BATCH, digits
from benchmarks.step_times import Contestant
from fitkit import Callback, FitLoop, Phase, Record, Stack, TensorBoard, TensorLoader, supervised
from tests.parity import hand_loops as hand
from tests.parity.digits import keras_mlp

SCALARS_SHARE, SCALARS_US, EVERYTHING_SHARE = 1.03, 10.0, 1.10
STEPS, VAL_STEPS, RUNS = 1563, 313, 5
UNITS = {"step": "us", "epoch": "ms", "whole": "ms", "run": "ms"}
BASELINE = "no logging"

Attached = Callable[[str], Sequence[Callback] | Stack]

CONTESTANTS: dict[str, Attached] = {
    BASELINE: lambda folder: (),
    "scalars": lambda folder: (TensorBoard(folder),),
    "everything": lambda folder: TensorBoard.everything(folder, image_shape=(28, 28)),
}


class Parts(Callback):
    """Take the CPU time of the parts of an epoch. Attached last: behind what the others do."""

    def __init__(self) -> None:
        self.marks: dict[str, float] = {}

    def on_epoch_begin(self, state: Any) -> None:
        """Begin with the epoch."""
        self.marks["begin"] = time.process_time()

    def on_pass_end(self, state: Any) -> None:
        """End the part that is told per step."""
        if state.phase is Phase.TRAIN:
            self.marks["trained"] = time.process_time()

    def on_save(self, state: Any) -> None:
        """End with what comes last in an epoch."""
        self.marks["end"] = time.process_time()

    def figures(self, steps: int) -> dict[str, float]:
        """What the latest epoch took, in the units of UNITS."""
        begin, trained, end = (self.marks[name] for name in ("begin", "trained", "end"))
        return {
            "step": (trained - begin) / steps * 1e6,
            "epoch": (end - trained) * 1e3,
            "whole": (end - begin) * 1e3,
        }


class Trainers:
    """Makes loops over the same data.

    Args:
        steps: updates of an epoch; a validation has a fifth as many batches.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.train, self.val = digits(steps), digits(max(1, steps * VAL_STEPS // STEPS))

    def loop(self, name: str, backend: str | None) -> FitLoop:
        """A new loop of a contestant, with a run directory of its own."""
        keras.utils.set_random_seed(1)
        stack = supervised(
            loss=keras.losses.CategoricalCrossentropy(from_logits=True),
            optimizer=keras.optimizers.Adam(hand.LEARNING_RATE),
            metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
        )
        folder = tempfile.mkdtemp()
        train = TensorLoader(*self.train, batch_size=BATCH, shuffle=True)
        val = TensorLoader(*self.val, batch_size=BATCH)
        record: Any = [Record(backend)] if backend else []
        loop = FitLoop(keras_mlp(), train, val, run_dir=folder)
        return loop.attach(*stack, *CONTESTANTS[name](folder), *record)


def epochs(
    trainers: Trainers, backend: str | None, rounds: int
) -> tuple[dict[str, Any], list[float]]:
    """The parts of an epoch, per contestant and round; us per step within the hooks."""
    loops = {name: trainers.loop(name, backend) for name in CONTESTANTS}
    parts = {name: Parts() for name in loops}
    for name, loop in loops.items():
        loop.attach(parts[name])
        loop.fit(epochs=1)  # builds, traces and compiles
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in loops}
    for index in range(rounds):
        # The order turns around every round, so that neither side always runs on the warmer cache.
        for name in loops if index % 2 == 0 else reversed(loops):
            gc.collect()  # one contestant does not pay for the other's garbage
            loops[name].fit(epochs=1)
            taken[name].append(parts[name].figures(trainers.steps))
    return _by_part(taken), hook_times(loops["scalars"])


def _by_part(taken: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    return {
        name: {part: [figures[part] for figures in all_figures] for part in all_figures[0]}
        for name, all_figures in taken.items()
    }


def hook_times(loop: FitLoop) -> list[float]:
    """Wall time in us per step in the hooks of `TensorBoard`, ends of epochs too; per epoch."""
    boards = [each for each in loop.callbacks if isinstance(each, TensorBoard)]
    contestant = Contestant(loop, boards)
    return [contestant.time_in_hooks() for _ in range(RUNS)]


def runs(trainers: Trainers) -> dict[str, list[float]]:
    """CPU time in ms of a call of `fit` for one update, per contestant and round."""
    taken: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    for _ in range(1 + RUNS):
        for name, found in taken.items():
            loop = trainers.loop(name, None)
            gc.collect()
            begin = time.process_time()
            loop.fit(max_steps=1)
            found.append((time.process_time() - begin) * 1e3)
    return {name: found[1:] for name, found in taken.items()}  # the first one imports


def summary(taken: dict[str, Any]) -> dict[str, Any]:
    """The times of each contestant, what it adds to those without logging, and the ratios."""
    result: dict[str, Any] = {"cpu": {}, "adds": {}, "ratio": {}}
    for name, parts in taken.items():
        result["cpu"][name] = {part: spread(values) for part, values in parts.items()}
        if name != BASELINE:
            base = taken[BASELINE]
            result["ratio"][name] = spread(ratios(parts["whole"], base["whole"]))
            result["adds"][name] = {
                part: statistics.median(a - b for a, b in zip(values, base[part], strict=True))
                for part, values in parts.items()
            }
    return result


def table(result: dict[str, Any]) -> str:
    """The result as lines to read: medians, in brackets what is added to no logging."""
    head = "".join(f"{f'{part} [{unit}]':>20}" for part, unit in UNITS.items())
    lines = [f"{'CPU time':14}{head}  whole over no logging (p5 to p95)"]
    for name, parts in result["cpu"].items():
        adds = result["adds"].get(name, {})
        cells = [
            f"{parts[part]['median']:.1f}" + (f" ({adds[part]:+.1f})" if adds else "")
            for part in parts
        ]
        ratio = result["ratio"].get(name)
        told = "{median:.3f} ({p5:.3f} to {p95:.3f})".format(**ratio) if ratio else "baseline"
        lines.append(f"{name:14}" + "".join(f"{c:>20}" for c in cells).ljust(80) + f"  {told}")
    return "\n".join(lines)


def verdicts(result: dict[str, Any]) -> list[str]:
    """One line per bar: what was measured, what is allowed."""
    lines: list[str] = []
    if "eager" in result:
        ratio = result["eager"]["ratio"]
        for name, bar in {"scalars": SCALARS_SHARE, "everything": EVERYTHING_SHARE}.items():
            share = 100 * (ratio[name]["median"] - 1)
            lines.append(_verdict(f"{name}, eager", share, 100 * (bar - 1), "%"))
    if "recorded" in result:
        added = result["recorded"]["hooks"]["median"]  # the difference is lost in the spread
        lines.append(_verdict("scalars, recorded", added, SCALARS_US, "us"))
    return lines


def _verdict(what: str, value: float, allowed: float, unit: str) -> str:
    says = "holds" if value <= allowed else "ABOVE"
    return f"{what:20} {value:6.2f} {unit:2} of at most {allowed:.0f} {unit}: {says}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--steps", type=int, default=STEPS, help="updates of an epoch")
    parser.add_argument("--backend", default="inductor", choices=["interpret", "inductor"])
    parser.add_argument("--mode", choices=["eager", "recorded"], help="only this one; no file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    trainers = Trainers(arguments.steps)
    result: dict[str, Any] = {
        "steps": arguments.steps,
        "rounds": arguments.rounds,
        "backend": arguments.backend,
    }
    for mode, backend in {"eager": None, "recorded": arguments.backend}.items():
        if arguments.mode in (None, mode):
            taken, hooks = epochs(trainers, backend, arguments.rounds)
            if mode == "eager":
                for name, found in runs(trainers).items():
                    taken[name]["run"] = found
            result[mode] = summary(taken) | {"hooks": spread(hooks)}
            print(f"{mode}\n{table(result[mode])}", flush=True)
            print(
                f"in the hooks of TensorBoard: {result[mode]['hooks']['median']:.1f} us per step\n"
            )
    result["machine"] = machine("cpu")
    print("\n".join(verdicts(result)))
    if arguments.mode is None:
        write_result("logging_cost", result)


if __name__ == "__main__":
    main()
