"""A model with a `test_step` of its own: `loop.evaluate` and every validation call it."""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
from digits import load, split

from fitkit import FitLoop, TensorLoader, compiled


class OwnEvaluation(keras.Model):
    """Trained as Keras does it, evaluated by itself."""

    def test_step(self, data):
        """Evaluate one batch and return the logs."""
        x, y = data
        y_pred = self(x, training=False)
        loss = self.compute_loss(y=y, y_pred=y_pred)
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss)
            else:
                metric.update_state(y, y_pred)
        return {metric.name: metric.result() for metric in self.metrics}


def build(num_pixels):
    """Return the model, compiled."""
    inputs = keras.Input((num_pixels,))
    hidden = keras.layers.Dense(64, activation="relu")(inputs)
    model = OwnEvaluation(inputs, keras.layers.Dense(10)(hidden))
    model.compile(
        optimizer=keras.optimizers.Adam(3e-3),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    )
    return model


def main():
    """Train on digits, then evaluate on those held out."""
    train, val = split(*load())
    loop = FitLoop(
        build(train[0].shape[1]),
        TensorLoader(*train, batch_size=32, shuffle=True, seed=0),
        TensorLoader(*val, batch_size=32),
        callbacks=compiled(),
    )
    loop.fit(epochs=5)
    results = loop.evaluate()
    print(f"evaluated: loss {results['loss']:.4f}, accuracy {results['accuracy']:.4f}")


if __name__ == "__main__":
    main()
