"""Draw the pictures of the recipes and of watching.md: `python -m docs.pictures`."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import torch
from matplotlib import pyplot
from sklearn.datasets import load_digits
from torchmetrics.classification import MulticlassAccuracy

from fitkit import (
    ActivationStats,
    Cosine,
    FitLoop,
    LRFinder,
    LRSchedule,
    OneCycle,
    TensorLoader,
    Warmup,
    WarmupStableDecay,
    supervised,
)

FOLDER = Path(__file__).parent / "recipes"
IMAGES = Path(__file__).parent / "img"


def schedules() -> None:
    """The ready-made schedules, drawn by their own `plot`."""
    made = {
        "Cosine(1.0, steps=200, warmup=20)": Cosine(1.0, steps=200, warmup=20),
        "OneCycle(1.0, steps=200)": OneCycle(1.0, steps=200),
        "WarmupStableDecay(1.0, steps=200, warmup=20, decay=60)": WarmupStableDecay(
            1.0, steps=200, warmup=20, decay=60
        ),
        "Warmup(1.0, steps=20)": Warmup(1.0, steps=20),
    }
    draw: Any = pyplot
    figure, all_axes = draw.subplots(2, 2, figsize=(9, 5), layout="constrained", sharey=True)
    for axes, (title, schedule) in zip(all_axes.flat, made.items(), strict=True):
        LRSchedule(schedule).plot(200, axes=axes)
        axes.set_title(title, fontsize=9)
    figure.savefig(FOLDER / "lr_schedule.png", dpi=80)


def finder() -> None:
    """The search for a rate, drawn by its own `plot`."""
    torch.manual_seed(0)
    x = torch.randn(2000, 16)
    model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 1))
    loop = FitLoop(model, TensorLoader(x, x.square().sum(1, keepdim=True) / 8, shuffle=True))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loop.attach(supervised(loss=torch.nn.MSELoss(), optimizer=optimizer))
    found = LRFinder(start=1e-4, end=10.0, num_updates=200).find(loop)
    found.plot().figure.savefig(FOLDER / "lr_finder.png", dpi=80)


def watching() -> None:
    """A run on the digits: its history, and what its layers give."""
    torch.manual_seed(0)
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype("float32")
    layers = torch.nn
    model = layers.Sequential(
        *(layers.Linear(64, 64), layers.ReLU(), layers.Linear(64, 64), layers.ReLU()),
        layers.Linear(64, 10),
    )
    train = TensorLoader(images[:1200], labels[:1200], batch_size=32, shuffle=True, seed=0)
    loop = FitLoop(model, train, TensorLoader(images[1200:], labels[1200:], batch_size=256))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    loss, stats = torch.nn.CrossEntropyLoss(), ActivationStats(every=10)
    metrics = {"accuracy": MulticlassAccuracy(num_classes=10, average="micro")}
    loop.attach(supervised(loss=loss, optimizer=optimizer, metrics=metrics), stats)
    loop.fit(epochs=20).save_plot(IMAGES / "history.png")
    stats.plot()[0].figure.savefig(IMAGES / "activations.png", dpi=90)


if __name__ == "__main__":
    watching()
    schedules()
    finder()
