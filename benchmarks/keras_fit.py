"""Time of a step: a compiled Keras model in `model.fit` against the same model in a `FitLoop`.

Both train on the same `DataLoader` of digit-like images in batches of 32, with loss and accuracy;
one call trains one epoch. Keras is as fast as it can be: no progress bar, no callbacks. Beside them
stands the same training by hand, without any loop of a library: what `fit` adds to it is all that
another eager loop can save.

    python -m benchmarks.keras_fit [--rounds 9] [--cases MLP CNN]
"""

import argparse
import os
from typing import Any

os.environ["KERAS_BACKEND"] = "torch"
os.environ["KERAS_TORCH_DEVICE"] = "cpu"

import keras
import torch
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.harness import Run, compare, table, write_result
from benchmarks.record_cases import BATCH, CASES
from fitkit import FitLoop, Record, compiled

STEPS = 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--cases", nargs="*", default=["MLP", "CNN"])
    arguments = parser.parse_args()
    result: dict[str, Any] = {}
    for case in arguments.cases:
        contestants = {
            "Keras fit": by_fit(case),
            "by hand": by_hand(case),
            "compiled(), eager": by_loop(case),
            "compiled(), Record interpret": by_loop(case, Record("interpret", strict=True)),
        }
        result[case] = compare(contestants, steps=STEPS, rounds=arguments.rounds)
        print(f"{case}\n{table(result[case])}\n", flush=True)
    write_result("keras_fit", result)


def prepared(case: str) -> tuple[keras.Model, DataLoader[Any]]:
    """The compiled model and the data, from a fixed seed."""
    make_model, make_data = CASES[case]
    keras.utils.set_random_seed(1)
    model = make_model()
    model.compile(
        optimizer=keras.optimizers.Adam(1e-3),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
    )
    return model, DataLoader(TensorDataset(*make_data(STEPS)), BATCH)


def by_fit(case: str) -> Run:
    model, loader = prepared(case)
    return lambda num_steps: model.fit(loader, epochs=1, shuffle=False, verbose=0)


def by_hand(case: str) -> Run:
    model, loader = prepared(case)
    weights, optimizer = model.trainable_variables, model.optimizer
    optimizer.build(weights)
    loss_fn = keras.losses.CategoricalCrossentropy(from_logits=True)
    mean, accuracy = keras.metrics.Mean(), keras.metrics.CategoricalAccuracy()

    def run(num_steps: int) -> None:
        for x, y in loader:
            model.zero_grad()
            outputs = model(x, training=True)
            loss = loss_fn(y, outputs)
            loss.backward()
            with torch.no_grad():
                optimizer.apply([weight.value.grad for weight in weights], weights)
                mean.update_state(loss, sample_weight=len(x))
                accuracy.update_state(y, outputs)
        float(mean.result()), float(accuracy.result())
        mean.reset_state(), accuracy.reset_state()

    return run


def by_loop(case: str, *more: Any) -> Run:
    model, loader = prepared(case)
    loop = FitLoop(model, loader, callbacks=[compiled(), *more])
    return lambda num_steps: loop.fit(epochs=1)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
