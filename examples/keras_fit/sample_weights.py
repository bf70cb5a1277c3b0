"""A `train_step` that takes sample weights as a third part of the batch, if there are any."""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np
import torch
from digits import load, split

from fitkit import FitLoop, TensorLoader, compiled


class Weighted(keras.Model):
    """Hands the weights on to the loss and to the metrics."""

    def train_step(self, data):
        """Train on one batch and return the logs."""
        x, y = data[0], data[1]
        weight = data[2] if len(data) == 3 else None
        self.zero_grad()
        y_pred = self(x, training=True)
        loss = self.compute_loss(y=y, y_pred=y_pred, sample_weight=weight)
        loss.backward()
        weights = self.trainable_weights
        with torch.no_grad():
            self.optimizer.apply([each.value.grad for each in weights], weights)
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss)
            else:
                metric.update_state(y, y_pred, sample_weight=weight)
        return {metric.name: metric.result() for metric in self.metrics}


def build(num_pixels):
    """Return the model, compiled."""
    inputs = keras.Input((num_pixels,))
    hidden = keras.layers.Dense(64, activation="relu")(inputs)
    model = Weighted(inputs, keras.layers.Dense(10)(hidden))
    model.compile(
        optimizer=keras.optimizers.Adam(3e-3),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    )
    return model


def main():
    """Count the eights, which are easily mistaken, twice."""
    (x, y), val = split(*load())
    weight = np.where(y == 8, 2, 1).astype("float32")
    loop = FitLoop(
        build(x.shape[1]),
        TensorLoader(x, y, weight, batch_size=32, shuffle=True, seed=0),
        TensorLoader(*val, batch_size=256),
        callbacks=compiled(),
    )
    for row in loop.fit(epochs=5).rows:
        print(f"weighted loss {row['loss']:.4f}, val_accuracy {row['val_accuracy']:.4f}")


if __name__ == "__main__":
    main()
