"""Train a Keras model on handwritten digits: model, data, loss, optimizer, fit."""

import os

os.environ["KERAS_BACKEND"] = "torch"  # before keras is imported

import keras
from sklearn.datasets import load_digits

from fitkit import FitLoop, TensorLoader, supervised

images, labels = load_digits(return_X_y=True)  # 1,797 images of 8 x 8 pixels, values 0 to 16
train = TensorLoader(
    images.astype("float32") / 16,
    keras.utils.to_categorical(labels),
    batch_size=32,
    shuffle=True,
    seed=0,
)

model = keras.Sequential(
    [
        keras.Input((64,)),
        keras.layers.Dense(64, activation="relu"),
        keras.layers.Dense(10),
    ]
)

loop = FitLoop(
    model,
    train,
    callbacks=supervised(
        loss=keras.losses.CategoricalCrossentropy(from_logits=True),
        optimizer=keras.optimizers.Adam(3e-3),
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
    ),
)
history = loop.fit(epochs=5)

for row in history.rows:
    print(f"epoch {row['epoch']}: loss {row['loss']:.4f}, accuracy {row['accuracy']:.4f}")
