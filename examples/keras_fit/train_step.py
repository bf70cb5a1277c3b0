"""A model with a `train_step` of its own, on the loss and metrics it was compiled with."""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import torch
from digits import load, split

from fitkit import FitLoop, TensorLoader, compiled


class OwnStep(keras.Model):
    """Clears gradients, computes the loss, updates weights and metrics by itself."""

    def train_step(self, data):
        """Train on one batch and return the logs."""
        x, y = data
        self.zero_grad()
        y_pred = self(x, training=True)
        loss = self.compute_loss(y=y, y_pred=y_pred)
        loss.backward()
        weights = self.trainable_weights
        with torch.no_grad():
            self.optimizer.apply([weight.value.grad for weight in weights], weights)
        for metric in self.metrics:  # the first one tracks the loss
            if metric.name == "loss":
                metric.update_state(loss)
            else:
                metric.update_state(y, y_pred)
        return {metric.name: metric.result() for metric in self.metrics}


def build(num_pixels):
    """Return the model, compiled."""
    inputs = keras.Input((num_pixels,))
    hidden = keras.layers.Dense(64, activation="relu")(inputs)
    model = OwnStep(inputs, keras.layers.Dense(10)(hidden))
    model.compile(
        optimizer=keras.optimizers.Adam(3e-3),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    )
    return model


def main():
    """Train on digits."""
    train, val = split(*load())
    model = build(train[0].shape[1])
    loop = FitLoop(
        model,
        TensorLoader(*train, batch_size=32, shuffle=True, seed=0),
        TensorLoader(*val, batch_size=256),
        callbacks=compiled(),  # finds the train_step; validation is Keras's own
    )
    for row in loop.fit(epochs=5).rows:
        print(f"loss {row['loss']:.4f}, accuracy {row['accuracy']:.4f}, ", end="")
        print(f"val_accuracy {row['val_accuracy']:.4f}")


if __name__ == "__main__":
    main()
