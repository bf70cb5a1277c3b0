"""Adds several metrics, losses that layers add, and a log of one part of the loss."""

import os

os.environ["KERAS_BACKEND"] = "torch"

import keras
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from fitkit import Event, FitLoop, Phase, TensorLoader, supervised


class ActivityPenalty(keras.layers.Layer):
    """Passes its inputs on and adds a small multiple of their size to the loss."""

    def call(self, inputs):
        """Add the penalty."""
        self.add_loss(1e-3 * torch.mean(inputs**2))
        return inputs


images, labels = load_digits(return_X_y=True)
split = train_test_split(images.astype("float32") / 16, labels, test_size=300, random_state=0)
x_train, x_val, y_train, y_val = split
train = TensorLoader(x_train, y_train, batch_size=32, shuffle=True, seed=0)
val = TensorLoader(x_val, y_val, batch_size=256)

inputs = keras.Input((64,))
hidden = keras.layers.Dense(64, activation="relu", kernel_regularizer="l2")(inputs)
hidden = ActivityPenalty()(hidden)
hidden = keras.layers.Dense(64, activation="relu")(hidden)
hidden = ActivityPenalty()(hidden)
model = keras.Model(inputs, keras.layers.Dense(10)(hidden))

metrics = {
    "accuracy": keras.metrics.SparseCategoricalAccuracy(),
    "in_top_3": keras.metrics.SparseTopKCategoricalAccuracy(k=3),
}
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
loop = FitLoop(model, train, val)
loop.attach(supervised(loss=loss, optimizer=keras.optimizers.Adam(3e-3), metrics=metrics))


# AddedLosses, part of the stack, has added the three losses to state.loss and kept their sum.
@loop.on(Event.UPDATE_METRICS, phases=[Phase.TRAIN, Phase.VAL])
def log_penalty(state):
    state.log("penalty", state.losses["added"])


for row in loop.fit(epochs=5).rows:
    print(
        f"epoch {row['epoch']}: loss {row['loss']:.3f}, of it penalty {row['penalty']:.3f}, ",
        end="",
    )
    print(f"val_accuracy {row['val_accuracy']:.3f}, val_in_top_3 {row['val_in_top_3']:.3f}")
