"""Adds a validation loader, a progress bar, the speed of training, and TensorBoard files."""

import os

os.environ["KERAS_BACKEND"] = "torch"

import keras
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from fitkit import FitLoop, ProgressBar, TensorBoard, TensorLoader, Throughput, supervised

images, labels = load_digits(return_X_y=True)
split = train_test_split(images.astype("float32") / 16, labels, test_size=300, random_state=0)
x_train, x_val, y_train, y_val = split
train = TensorLoader(x_train, y_train, batch_size=32, shuffle=True, seed=0)
val = TensorLoader(x_val, y_val, batch_size=256)

layers = [keras.layers.Dense(64, activation="relu"), keras.layers.Dense(10)]
model = keras.Sequential([keras.Input((64,)), *layers])

loop = FitLoop(model, train, val)  # the validation pass comes from Validate, part of the stack
loop.attach(
    supervised(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        optimizer=keras.optimizers.Adam(3e-3),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    )
)
loop.attach(Throughput(), ProgressBar(), TensorBoard())  # a consumer after what it shows
history = loop.fit(epochs=5)

print(f"{history['speed/samples_per_s'][-1]:,.0f} samples/s, run again on val: {loop.evaluate()}")
print(f"tensorboard --logdir {loop.run_dir}")
