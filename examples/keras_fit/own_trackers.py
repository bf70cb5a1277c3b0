"""A model that computes loss and metrics by itself; `compile` gives it the optimizer alone."""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import torch
from digits import load, split

from fitkit import FitLoop, TensorLoader, compiled


class OwnTrackers(keras.Model):
    """Holds its loss function and its metrics, and lists the metrics: so they are reset."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.loss_fn = keras.losses.MeanSquaredError()
        self.loss_tracker = keras.metrics.Mean(name="loss")
        self.error = keras.metrics.MeanAbsoluteError(name="mae")
        self.accuracy = keras.metrics.CategoricalAccuracy(name="accuracy")

    @property
    def metrics(self):
        """What is reset at the beginning of every epoch."""
        return [self.loss_tracker, self.error, self.accuracy]

    def train_step(self, data):
        """Train on one batch and return the logs."""
        x, y = data
        self.zero_grad()
        y_pred = self(x, training=True)
        loss = self.loss_fn(y, y_pred)
        loss.backward()
        weights = self.trainable_weights
        with torch.no_grad():
            self.optimizer.apply([weight.value.grad for weight in weights], weights)
        self.loss_tracker.update_state(loss)
        self.error.update_state(y, y_pred)
        self.accuracy.update_state(y, y_pred)
        return {metric.name: metric.result() for metric in self.metrics}


def build(num_pixels):
    """Return the model, compiled with an optimizer and nothing else."""
    inputs = keras.Input((num_pixels,))
    hidden = keras.layers.Dense(64, activation="relu")(inputs)
    model = OwnTrackers(inputs, keras.layers.Dense(10)(hidden))
    model.compile(optimizer=keras.optimizers.Adam(3e-3))
    return model


def main():
    """Learn the one-hot labels of digits by least squares."""
    (x, y), _ = split(*load())
    train = TensorLoader(x, keras.utils.to_categorical(y), batch_size=32, shuffle=True, seed=0)
    loop = FitLoop(build(x.shape[1]), train, callbacks=compiled())
    for row in loop.fit(epochs=5).rows:
        print(f"loss {row['loss']:.4f}, mae {row['mae']:.4f}, accuracy {row['accuracy']:.4f}")


if __name__ == "__main__":
    main()
