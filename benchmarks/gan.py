"""Time of a GAN step: a `train_step` in one class, as a guide writes it, against two turns.

The networks of the guide on 28 x 28 images, batches of 64. The class runs every pass in full: the
generator with a graph in the discriminator's half, the discriminator's weight gradients in the
generator's half. It is called by hand, without what `fit` adds; its code is that of the parity
test, which holds `gan()` to the same weights, bit by bit.

    python -m benchmarks.gan [--rounds 9] [--steps 4] [--compile]
"""

import argparse
import os
from collections.abc import Iterator
from typing import Any

os.environ["KERAS_BACKEND"] = "torch"
os.environ.setdefault("KERAS_TORCH_DEVICE", "cpu")

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.harness import Run, compare, table, write_result
from fitkit import Record
from tests.parity import adversaries as adv

BATCH, LATENT, WIDTH = 64, 128, 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--compile", action="store_true", help="inductor, too")
    arguments = parser.parse_args()
    device = os.environ["KERAS_TORCH_DEVICE"]
    contestants = {
        "class, eager": by_class(device),
        "gan(), eager": by_turns(device),
        "gan(), Record interpret": by_turns(device, "interpret"),
    }
    if arguments.compile:
        backend = "inductor" if device == "cpu" else "cudagraph"
        contestants[f"gan(), Record {backend}"] = by_turns(device, backend)
    result = compare(
        contestants, steps=arguments.steps, rounds=arguments.rounds, warmup_rounds=2, device=device
    )
    result["flops_per_step"] = {
        name: flops(contestants[name]) for name in ("class, eager", "gan(), eager")
    }
    by_hand, by_gan = result["flops_per_step"].values()
    print(table(result))
    print(f"FLOPs of a step: {by_gan / by_hand:.3f} of the class's")
    write_result("gan" if device == "cpu" else f"gan_{device}", result)


def by_class(device: str) -> Run:
    model, loader = adv.user_gan(WIDTH, LATENT), adv.images(10 * BATCH, BATCH)

    def batches() -> Iterator[Any]:
        while True:
            for batch in loader:
                yield [part.to(device) for part in batch]

    endless = batches()

    def run(num_steps: int) -> None:
        for _ in range(num_steps):
            model.train_step(next(endless))

    return run


def by_turns(device: str, backend: str | None = None) -> Run:
    more = [Record(backend, strict=True)] if backend else []
    loop = adv.gan_loop(adv.user_gan(WIDTH, LATENT), adv.images(10 * BATCH, BATCH), *more)
    loop.fit(max_steps=12 if backend else 1)  # so that what is built and traced exists

    def run(num_steps: int) -> None:
        loop.fit(max_steps=num_steps)

    return run


def flops(run: Run) -> int:
    """Floating point operations of one step."""
    with FlopCounterMode(display=False) as counter:
        run(1)
    return counter.get_total_flops()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
