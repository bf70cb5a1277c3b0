"""Models, loaders and a loop that cost nothing, the same every time."""

from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fitkit.data import TensorLoader
from fitkit.loop.callback import Callback
from fitkit.loop.fit_loop import FitLoop
from fitkit.stacks import supervised

__all__ = ["tiny_batches", "tiny_keras_model", "tiny_loop", "tiny_model"]


def tiny_model(seed: int = 0) -> nn.Module:
    """Return a module from (batch, 4) to (batch, 1) with dropout; seeds torch."""
    torch.manual_seed(seed)  # pyright: ignore[reportUnknownMemberType]  # untyped in torch
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 1))


def tiny_keras_model(seed: int = 0) -> Any:
    """Return a Keras model from (batch, 4) to (batch, 1) with dropout; seeds everything."""
    keras: Any = import_module("keras")  # only here: fitkit imports without it
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    inner = [layers.Dense(8, activation="tanh"), layers.Dropout(0.2), layers.Dense(1)]
    return keras.Sequential([keras.Input((4,)), *inner])


def tiny_batches(num: int = 36, *, batch_size: int = 8, shuffle: bool = False) -> TensorLoader:
    """Return float32 batches of (batch, 4) and (batch, 1); the last of 36 has 4 rows."""
    x = torch.randn(num, 4, generator=torch.Generator().manual_seed(1))
    return TensorLoader(x, x.sum(1, keepdim=True), batch_size=batch_size, shuffle=shuffle, seed=2)


def tiny_loop(*callbacks: Callback, model: Any = None, run_dir: Path | None = None) -> FitLoop:
    """Return a loop that trains a tiny model, with validation; `callbacks` come after its stack.

    The optimizer is Adam, that of Keras for a Keras model, and a fused one of torch otherwise,
    which reads nothing in a step.
    """
    model = tiny_model() if model is None else model
    keras_model = hasattr(model, "stateless_call")
    torch_adam = None if keras_model else torch.optim.Adam(model.parameters(), lr=0.01, fused=True)
    optimizer = torch_adam or "adam"
    loss = "mse" if keras_model else nn.MSELoss()
    loop = FitLoop(model, tiny_batches(shuffle=True), tiny_batches(12), run_dir=run_dir)
    return loop.attach(supervised(loss=loss, optimizer=optimizer), *callbacks)
