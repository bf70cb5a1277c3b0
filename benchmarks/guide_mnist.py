"""The guide's MNIST recipe by hand and by fitkit, seed by seed: equal to the bit, or it says so.

Batch 32, raw 0-255 pixels, 3 epochs, the last 10,000 training images held out, Keras Adam 1e-3.

    python -m benchmarks.guide_mnist                     # keras.datasets.mnist
    python -m benchmarks.guide_mnist --data mnist.npz    # any file in its format
"""

import argparse
import hashlib
import os
import statistics
import time
from typing import Any

os.environ["KERAS_BACKEND"] = "torch"
os.environ["KERAS_TORCH_DEVICE"] = "cpu"

import keras
import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.harness import machine, write_result
from fitkit import FitLoop, supervised
from tests.parity import hand_loops as hand
from tests.parity.digits import keras_mlp

NUM_VAL = 10_000
BATCH_SIZE = 32

Arrays = tuple[np.ndarray, np.ndarray]
Logged = tuple[list[np.ndarray], list[dict[str, float]]]


def main() -> None:
    arguments = parsed()
    torch.set_num_threads(1)
    x, y = arrays = read(arguments.data)
    runs = []
    for seed in range(arguments.seeds):
        runs.append(compared(arrays, seed, arguments.epochs))
        print(line(runs[-1]), flush=True)
    result = {
        "recipe": {"batch_size": BATCH_SIZE, "epochs": arguments.epochs, "num_val": NUM_VAL},
        "data": {
            "images": len(x),
            "sha256": hashlib.sha256(x.tobytes() + y.tobytes()).hexdigest()[:16],
        },
        "summary": summary(runs),
        "runs": runs,
        "machine": machine("cpu"),
    }
    for name, value in result["summary"].items():
        print(f"{name:32}{value}")
    print(f"written: {write_result('guide_mnist', result).name}")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="an .npz in the format of mnist.npz")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=3)
    return parser.parse_args()


def read(path: str | None) -> Arrays:
    """Training images as raw pixels (60000, 784), float32; labels as one-hot rows, float32."""
    if path is None:
        (images, labels), _ = keras.datasets.mnist.load_data()
    else:
        with np.load(path) as file:
            images, labels = file["x_train"], file["y_train"]
    x = images.reshape(len(images), 784).astype("float32")
    return x, np.eye(10, dtype="float32")[labels]


def compared(arrays: Arrays, seed: int, epochs: int) -> dict[str, Any]:
    """One seed: both contestants from the same first weights over the same batches."""
    by_hand, hand_s = timed(by_hand_loop, arrays, seed, epochs)
    by_fitkit, fitkit_s = timed(by_fitkit_loop, arrays, seed, epochs)
    return {
        "seed": seed,
        "weights_equal": all(map(np.array_equal, by_hand[0], by_fitkit[0])),
        "accuracies_equal": all(
            ours[key] == theirs[key]
            for ours, theirs in zip(by_fitkit[1], by_hand[1], strict=True)
            for key in ("accuracy", "val_accuracy")
        ),
        "largest_loss_difference": max(
            abs(ours[key] - theirs[key]) / abs(theirs[key])
            for ours, theirs in zip(by_fitkit[1], by_hand[1], strict=True)
            for key in ("loss", "val_loss")
        ),
        "hand_loop": {"cpu_s": hand_s, "epochs": by_hand[1]},
        "fitkit": {"cpu_s": fitkit_s, "epochs": by_fitkit[1]},
    }


def timed(train: Any, *arguments: Any) -> tuple[Logged, float]:
    begin = time.process_time()
    logged = train(*arguments)
    return logged, round(time.process_time() - begin, 2)


def prepared(arrays: Arrays, seed: int) -> tuple[keras.Model, DataLoader, DataLoader]:
    x, y = map(torch.from_numpy, arrays)
    keras.utils.set_random_seed(seed)
    train = TensorDataset(x[:-NUM_VAL], y[:-NUM_VAL])
    val = TensorDataset(x[-NUM_VAL:], y[-NUM_VAL:])
    return keras_mlp(), DataLoader(train, BATCH_SIZE, shuffle=True), DataLoader(val, BATCH_SIZE)


def by_hand_loop(arrays: Arrays, seed: int, epochs: int) -> Logged:
    run = hand.keras_form(*prepared(arrays, seed), epochs=epochs)
    return run.weights, run.epochs


def by_fitkit_loop(arrays: Arrays, seed: int, epochs: int) -> Logged:
    model, train, val = prepared(arrays, seed)
    stack = supervised(
        loss=keras.losses.CategoricalCrossentropy(from_logits=True),
        optimizer=keras.optimizers.Adam(hand.LEARNING_RATE),
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
    )
    history = FitLoop(model, train, val, callbacks=stack).fit(epochs=epochs)
    names = ("loss", "accuracy", "val_loss", "val_accuracy")
    return hand.weights_of(model), [{name: row[name] for name in names} for row in history.rows]


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    last = {side: [run[side]["epochs"][-1] for run in runs] for side in ("hand_loop", "fitkit")}
    accuracies = sorted(row["val_accuracy"] for row in last["fitkit"])
    return {
        "seeds_bit_equal": sum(run["weights_equal"] and run["accuracies_equal"] for run in runs),
        "largest_loss_difference": max(run["largest_loss_difference"] for run in runs),
        "val_accuracy_median": statistics.median(accuracies),
        "val_accuracy_hand_loop_median": statistics.median(
            row["val_accuracy"] for row in last["hand_loop"]
        ),
        "val_accuracy_range": [accuracies[0], accuracies[-1]],
        "val_loss_median": statistics.median(row["val_loss"] for row in last["fitkit"]),
        "cpu_ratio_median": statistics.median(
            run["fitkit"]["cpu_s"] / run["hand_loop"]["cpu_s"] for run in runs
        ),
    }


def line(run: dict[str, Any]) -> str:
    equal = "equal" if run["weights_equal"] and run["accuracies_equal"] else "DIFFERENT"
    accuracy = run["fitkit"]["epochs"][-1]["val_accuracy"]
    times = f"hand loop {run['hand_loop']['cpu_s']:.1f} s, fitkit {run['fitkit']['cpu_s']:.1f} s"
    return f"seed {run['seed']}: {equal}, val accuracy {accuracy:.4f}, {times}"


if __name__ == "__main__":
    main()
