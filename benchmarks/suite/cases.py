"""What is trained: model, data, batch size; one entry per case, and the points of the curves.

Targets are class numbers everywhere (per token in the transformers), so that the losses of Keras
and torch take the same bytes. Nothing is shuffled: every contestant gets the same batches in the
same order, and dropout is left out, so that all must end at the same loss.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import nn

from benchmarks.suite import models
from benchmarks.suite.data import Arrays, bags, digits, images, pictures, texts

FEW = ("hand-keras", "hand-torch", "tuned", "tuned-compile", "keras-fit", "lightning", "fitkit",
       "record-inductor", "record-torch", "record-cudagraph", "floor")  # fmt: skip
"""Contestants of the compute-bound cases: all of them would take too long there."""
HEAVY = ("tuned-compile", "skorch", "poutyne", "fitkit-torch-loader")
"""What the quick suite leaves out where a compile takes a minute: a second one, and some of those
who differ least from a hand loop where a step is long."""
CURVES = ("hand-keras", "hand-torch", "keras-fit", "lightning", "fitkit", "record-interpret",
          "record-inductor", "record-cudagraph", "floor")  # fmt: skip
AXES = {
    "batch": (8, 128, 512, 2048, 8192),
    "layers": (4, 8, 16, 32, 64),
    "callbacks": (5, 10, 20, 50),
    "metrics": (1, 2, 5, 10),
}
"""The points of the curves, but for those that are cases: mlp-32 is on all of them."""
SECONDS_PER_VALUE = {"batch": 0.01, "layers": 4.0, "callbacks": 0.3, "metrics": 4.0}
QUICK_POINTS = {"batch": (8, 128, 2048)}


@dataclass(frozen=True)
class Case:
    """One thing to train.

    Attributes:
        title: For people.
        compares: What the case shows, one sentence.
        model: Makes the network; the seed is set before.
        data: Maps a number of samples to inputs and class numbers.
        batch: Samples per step.
        steps: Steps per epoch, what one round trains: about 40 ms of the fastest.
        longer_on_cuda: How many times as many there.
        kind: "keras" or "torch", of what the model is built; "gan" has two networks.
        num_metrics: Accuracies kept while training.
        validates: Whether every epoch ends with a validation over a quarter as many batches.
        num_callbacks: Callbacks that do nothing, on top.
        devices: Where it is run.
        only: Names of the contestants; None for all.
        axis: Which curve this is a point of.
        value: Its place on the axis.
        together: How many contestants may be in memory at the same time; None for all.
        comparable_steps: After how many steps losses say nothing of what was trained: rounding has
            grown to as much.
        quick_without: Contestants that the quick suite leaves out here.
        seconds: What it takes in the quick suite: on two cores, with an empty compiler cache. By
            that the cases share the time where it is limited.
        full_seconds: The same for all contestants and rounds.
    """

    name: str
    title: str
    compares: str
    model: Callable[[], nn.Module]
    data: Callable[[int], Arrays]
    batch: int
    steps: int
    kind: str = "keras"
    num_metrics: int = 0
    validates: bool = False
    num_callbacks: int = 0
    devices: tuple[str, ...] = ("cpu", "cuda")
    longer_on_cuda: int = 1
    only: tuple[str, ...] | None = None
    axis: str | None = None
    value: int = 0
    together: int | None = None
    comparable_steps: int | None = None
    quick_without: tuple[str, ...] = ()
    seconds: int = 60
    full_seconds: int = 240


# -- the cases -------------------------------------------------------------------------------------

TINY = {"vocabulary": 256, "length": 64}
SMALL = {"vocabulary": 50_257, "length": 1024}
_tiny = {**TINY, "depth": 2, "width": 64, "heads": 4}
_small = {**SMALL, "depth": 12, "width": 768, "heads": 12}


def gan() -> nn.Module:
    from tests.parity import adversaries

    return adversaries.user_gan(width=16, latent_dim=64)


CASES: dict[str, Case] = {
    case.name: case
    for case in [
        Case("mlp-32", "Guide's MLP, batch 32", "What a loop costs where a step is short.",
             models.mlp, digits, 32, 64, longer_on_cuda=8, seconds=50,
             full_seconds=140),
        Case("mlp-1024", "Guide's MLP, batch 1024", "The same with more arithmetic per step.",
             models.mlp, digits, 1024, 8, longer_on_cuda=8, seconds=34, full_seconds=105),
        Case("mlp-metrics", "Guide's MLP, accuracy, validation",
             "A whole epoch: accuracy at every step, validation at the end.",
             models.mlp, digits, 32, 32, num_metrics=1, validates=True, longer_on_cuda=8,
             seconds=42, full_seconds=145),
        Case("mlp-torch", "MLP of torch modules, batch 32",
             "The same MLP without Keras: what the loops themselves cost.",
             models.torch_mlp, digits, 32, 64, kind="torch", longer_on_cuda=8, seconds=30,
             full_seconds=95),
        Case("cnn", "CNN on 32x32x3, batch 32", "Convolutions and batch normalization.",
             models.cnn, images, 32, 4, longer_on_cuda=32, quick_without=HEAVY, seconds=62,
             full_seconds=290),
        Case("bag", "Embedding bag, batch 32", "A large table; a step reads little of it.",
             models.embedding_bag, bags, 32, 24, longer_on_cuda=16, seconds=42, full_seconds=145),
        Case("gpt-tiny", "Tiny GPT of Keras layers", "Attention; two layers, 64 tokens, batch 8.",
             partial(models.gpt, **_tiny), partial(texts, **TINY), 8, 6, devices=("cpu",),
             quick_without=HEAVY, seconds=58, full_seconds=280),
        Case("gpt-tiny-torch", "Tiny GPT of torch modules", "The same of torch modules.",
             partial(models.TorchGPT, **_tiny), partial(texts, **TINY), 8, 8, kind="torch",
             devices=("cpu",), quick_without=HEAVY, seconds=45, full_seconds=140),
        Case("gan", "Guide's GAN, batch 16", "Two networks, two optimizers, one step each.",
             gan, pictures, 16, 4, kind="gan", longer_on_cuda=16, seconds=70, full_seconds=200),
        Case("resnet50", "ResNet-50, batch 64", "A compute-bound network of convolutions.",
             models.resnet50, partial(images, size=224, classes=1000), 64, 8, devices=("cuda",),
             only=FEW, together=3, seconds=150),
        Case("gpt2", "GPT-2 small of Keras layers", "124 million weights, 1024 tokens, batch 4.",
             partial(models.gpt, **_small), partial(texts, **SMALL), 4, 8, devices=("cuda",),
             only=FEW, together=3, seconds=150),
        Case("gpt2-torch", "GPT-2 small of torch modules", "The same of torch modules.",
             partial(models.TorchGPT, **_small), partial(texts, **SMALL), 4, 8, kind="torch",
             devices=("cuda",), only=FEW, together=3, seconds=100),
    ]
}  # fmt: skip
GROUPS = {
    "small": ("mlp-32", "mlp-1024", "mlp-metrics", "mlp-torch", "bag", "cnn", "gan"),
    "large": ("resnet50", "gpt2", "gpt2-torch"),
    "rest": ("curves", "built-in"),
}
"""What the three commands for a GPU run."""


DEEP, DEEP_STEPS = 16, 64
"""From how many layers on rounding grows fast: the hand loop itself goes another way from weights
that differ in their last bit. Losses are compared for so many steps only."""


def point(axis: str, value: int) -> Case:
    """The case at `value` on an axis; everything else as in the guide's MLP at batch 32."""
    batch = value if axis == "batch" else 32
    return Case(
        f"{axis}={value}",
        f"{axis}: {value}",
        f"How the time of a step grows with {axis}.",
        partial(models.mlp, value) if axis == "layers" else models.mlp,
        digits,
        batch,
        max(4, min(32, 16_384 // batch)),
        num_metrics=value if axis == "metrics" else 0,
        num_callbacks=value if axis == "callbacks" else 0,
        longer_on_cuda=4,
        only=CURVES,
        axis=axis,
        value=value,
        comparable_steps=DEEP_STEPS if axis == "layers" and value >= DEEP else None,
        seconds=15,
        full_seconds=40 + round(SECONDS_PER_VALUE[axis] * value),
    )


def find(name: str) -> Case:
    """The case, or point of a curve, of that name.

    Raises:
        KeyError: If there is none.
    """
    axis, _, value = name.partition("=")
    return point(axis, int(value)) if axis in AXES and value.isdigit() else CASES[name]
