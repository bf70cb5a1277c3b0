"""CPU time of a step of eager fitkit over the same loop written by hand, one thread.

The figure that counts is "metrics": the guide's loop with Keras loss, Adam and accuracy against
`supervised(...)` with what a loop always has (loss and metrics of the pass, history). Beside it the
other forms. The torch module shows best what fitkit adds, because so little else happens there.

    python -m benchmarks.step_overhead [--rounds 25] [form ...]
"""

import argparse
import os
from collections.abc import Callable
from itertools import islice
from typing import Any

os.environ["KERAS_BACKEND"] = "torch"
os.environ["KERAS_TORCH_DEVICE"] = "cpu"

import keras
import torch
from torch import nn

from benchmarks.harness import Run, compare, table, write_result
from fitkit import FitLoop, supervised
from tests.parity import hand_loops as hand
from tests.parity.digits import digit_loaders, keras_mlp, penalised_mlp, torch_mlp

NUM_TRAIN = 3200  # 100 full batches of 32: one call of fit is one pass
STEPS = NUM_TRAIN // 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("forms", nargs="*", default=list(FORMS), metavar="form", help=str(FORMS))
    parser.add_argument("--rounds", type=int, default=25)
    arguments = parser.parse_args()
    result = {}
    for name in arguments.forms:
        compared = compare(FORMS[name](), steps=STEPS, rounds=arguments.rounds, warmup_rounds=2)
        compared["fitkit_adds_us_per_step"] = added_us(compared)
        result[name] = compared
        print(f"{name}: fitkit adds {compared['fitkit_adds_us_per_step']:.1f} us per step")
        print(table(compared), end="\n\n", flush=True)
    if arguments.forms == list(FORMS):
        write_result("step_overhead", result)


def added_us(compared: dict[str, Any]) -> float:
    """Median over the rounds of fitkit's CPU time minus the hand loop's, in us per step."""
    by_hand, fitkit = (compared["cpu_us_per_step"][n]["all"] for n in ("hand loop", "fitkit"))
    differences = sorted(ours - theirs for ours, theirs in zip(fitkit, by_hand, strict=True))
    return differences[len(differences) // 2]


# -- the contestants of each form ------------------------------------------------------------------


def metrics_form() -> dict[str, Run]:
    by_hand, ours = seeded(keras_mlp), seeded(keras_mlp)
    return {
        "hand loop": hand.metrics_loop_steps(*by_hand, report=len),
        "fitkit": fitkit_steps(*ours, keras_adam(), keras_crossentropy(), [accuracy()]),
    }


def keras_form() -> dict[str, Run]:
    by_hand, ours = seeded(keras_mlp), seeded(keras_mlp)
    update = hand.keras_update(by_hand[0], keras_adam())
    return {
        "hand loop": hand_steps(*by_hand, hand.keras_loss(), update),
        "fitkit": fitkit_steps(*ours, keras_adam(), keras_crossentropy()),
    }


def added_losses_form() -> dict[str, Run]:
    by_hand, ours = seeded(penalised_mlp), seeded(penalised_mlp)
    update = hand.keras_update(by_hand[0], keras_adam())
    return {
        "hand loop": hand_steps(*by_hand, hand.keras_loss(), update, added_losses=True),
        "fitkit": fitkit_steps(*ours, keras_adam(), keras_crossentropy()),
    }


def torch_form() -> dict[str, Run]:
    return torch_optimizer_form(keras_mlp, torch_adam)


def torch_module_sgd() -> dict[str, Run]:
    def sgd(model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=1e-5, momentum=0.9)

    return torch_optimizer_form(torch_mlp, sgd)


def torch_module_fused_adam() -> dict[str, Run]:
    def adam(model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(model.parameters(), lr=hand.LEARNING_RATE, fused=True)

    return torch_optimizer_form(torch_mlp, adam)


def torch_optimizer_form(make_model: Any, make_optimizer: Any) -> dict[str, Run]:
    by_hand, ours = seeded(make_model), seeded(make_model)
    update = hand.torch_update(by_hand[0], make_optimizer(by_hand[0]))
    optimizer = make_optimizer(ours[0])
    return {
        "hand loop": hand_steps(*by_hand, hand.torch_loss(), update),
        "fitkit": fitkit_steps(*ours, optimizer, nn.CrossEntropyLoss()),
    }


def seeded(make_model: Callable[[], Any]) -> tuple[Any, Any]:
    """A model and a shuffled DataLoader; the same for every contestant."""
    keras.utils.set_random_seed(1)
    model = make_model()
    return model, digit_loaders(NUM_TRAIN, 32)[0]


def torch_adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=hand.LEARNING_RATE)


def keras_adam() -> Any:
    return keras.optimizers.Adam(hand.LEARNING_RATE)


def keras_crossentropy() -> Any:
    return keras.losses.CategoricalCrossentropy(from_logits=True)


def accuracy() -> Any:
    return keras.metrics.CategoricalAccuracy(name="accuracy")


def fitkit_steps(model: Any, train: Any, optimizer: Any, loss: Any, metrics: Any = ()) -> Run:
    stack = supervised(loss=loss, optimizer=optimizer, metrics=metrics)
    loop = FitLoop(model, train, callbacks=stack)
    return lambda num_steps: loop.fit(max_steps=num_steps)


def hand_steps(
    model: Any, train: Any, loss_of: Any, update: Any, added_losses: bool = False
) -> Run:
    """A bare hand loop: it keeps the sum of the losses and reads it once at the end of a pass."""

    def run(num_steps: int) -> float:
        total, count = torch.zeros(()), 0
        for inputs, targets in islice(train, num_steps):
            loss = loss_of(targets, model(inputs))
            for extra in model.losses if added_losses else ():
                loss = loss + extra
            update(loss)
            total += loss.detach() * len(targets)
            count += len(targets)
        return float(total) / count

    return run


FORMS: dict[str, Callable[[], dict[str, Run]]] = {
    "metrics": metrics_form,
    "keras": keras_form,
    "added losses": added_losses_form,
    "torch loss and Adam": torch_form,
    "torch module, SGD": torch_module_sgd,
    "torch module, fused Adam": torch_module_fused_adam,
}


if __name__ == "__main__":
    main()
