"""Adds a callback of your own: log the gradient norm, and stop when the model is good enough."""

import os

os.environ["KERAS_BACKEND"] = "torch"

import keras
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from fitkit import Callback, FitLoop, Phase, State, TensorLoader, supervised


class GradientNorm(Callback):
    """Log the length of the gradient. It stays on the device until the epoch ends."""

    phases = frozenset({Phase.TRAIN})

    def on_grads_ready(self, state: State) -> None:
        """Log the norm of all gradients together."""
        norms = [p.grad.norm() for p in state.model.parameters() if p.grad is not None]
        state.log("gradient_norm", torch.stack(norms).norm())


class StopWhenGood(Callback):
    """Stop once a log has reached a value."""

    def __init__(self, log: str, *, at_least: float) -> None:
        self.log, self.at_least = log, at_least

    def on_epoch_end(self, state: State) -> None:
        """Look at the log, which includes the validation of this epoch."""
        if state.logs[self.log] >= self.at_least:
            state.request_stop(f"{self.log} is {state.logs[self.log]:.3f}")


images, labels = load_digits(return_X_y=True)
split = train_test_split(images.astype("float32") / 16, labels, test_size=300, random_state=0)
x_train, x_val, y_train, y_val = split
train = TensorLoader(x_train, y_train, batch_size=32, shuffle=True, seed=0)
val = TensorLoader(x_val, y_val, batch_size=256)

layers = [keras.layers.Dense(64, activation="relu"), keras.layers.Dense(10)]
model = keras.Sequential([keras.Input((64,)), *layers])
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
optimizer = keras.optimizers.Adam(3e-3)
accuracy = keras.metrics.SparseCategoricalAccuracy(name="accuracy")
loop = FitLoop(model, train, val)
loop.attach(supervised(loss=loss, optimizer=optimizer, metrics=[accuracy]))
loop.attach(GradientNorm(), StopWhenGood("val_accuracy", at_least=0.97))
print(loop, end="\n\n")

for row in loop.fit(epochs=30).rows:
    shown = ("loss", "gradient_norm", "val_accuracy")
    print(f"epoch {row['epoch']}: " + ", ".join(f"{name} {row[name]:.3f}" for name in shown))
print("stopped:", loop.state.stop_reason)
