"""Train the guide's MLP on real handwritten digits, with everything a run usually wants.

python examples/demo.py                          scikit-learn's bundled digits, no network
python examples/demo.py --data mnist             MNIST, downloaded by Keras
python examples/demo.py --data path/to/mnist.npz a file with x_train, y_train, x_test, y_test
"""

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np

from fitkit import FitLoop, ProgressBar, TensorBoard, TensorLoader, Throughput, supervised


def digits():
    """Return the 1,797 digits of scikit-learn, 8 x 8 pixels from 0 to 16; every fifth is held out.

    Writers follow one another in the file, so this way each is in both parts.
    """
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    held_out = np.arange(len(x)) % 5 == 4
    return (x[~held_out], y[~held_out]), (x[held_out], y[held_out])


def mnist(path):
    """Return MNIST, 28 x 28 pixels from 0 to 255; as in the guide the last 10,000 are held out."""
    if path == "mnist":
        (x, y), _ = keras.datasets.mnist.load_data()
    else:
        with np.load(path) as arrays:
            x, y = arrays["x_train"], arrays["y_train"]
    size = min(10_000, len(x) // 5)
    return (x[:-size], y[:-size]), (x[-size:], y[-size:])


def as_loader(images, labels, *, shuffle):
    x = images.reshape(len(images), -1).astype("float32")  # raw pixels, as in the guide
    return TensorLoader(x, keras.utils.to_categorical(labels, 10), batch_size=32, shuffle=shuffle)


def mlp(num_pixels):
    inputs = keras.Input((num_pixels,), name="digits")
    x = keras.layers.Dense(64, activation="relu")(inputs)
    x = keras.layers.Dense(64, activation="relu")(x)
    return keras.Model(inputs, keras.layers.Dense(10, name="predictions")(x))


def print_table(history):
    columns = ["loss", "accuracy", "val_loss", "val_accuracy"]
    print("\nepoch " + "".join(f"{name:>14}" for name in [*columns, "samples/s"]))
    for row in history.rows:
        speed = row.get("speed/samples_per_s")
        values = "".join(f"{row[name]:>14.4f}" for name in columns)
        print(f"{row['epoch'] + 1:>5} {values}" + (f"{speed:>14,.0f}" if speed else ""))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="digits", help='"digits", "mnist" or an .npz file')
    parser.add_argument("--epochs", type=int, help="default: 10 for digits, 3 for MNIST")
    parser.add_argument("--run-dir", help="default: a new folder below runs/")
    options = parser.parse_args()

    small = options.data == "digits"
    epochs = options.epochs if options.epochs is not None else (10 if small else 3)
    train, held_out = digits() if small else mnist(options.data)
    keras.utils.set_random_seed(0)
    loop = FitLoop(
        mlp(train[0][0].size),
        as_loader(*train, shuffle=True),
        as_loader(*held_out, shuffle=False),
        callbacks=[
            *supervised(
                loss=keras.losses.CategoricalCrossentropy(from_logits=True),
                optimizer=keras.optimizers.Adam(1e-3),
                metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
            ),
            ProgressBar(),
            TensorBoard(),
            Throughput(),
        ],
        run_dir=options.run_dir,
    )
    print(f"{len(train[0]):,} digits to train on, {len(held_out[0]):,} held out, on {loop.device}")
    print_table(loop.fit(epochs=epochs))
    tensorboard = os.path.relpath(Path(sys.executable).with_name("tensorboard"))  # of this .venv
    print(f"\nSee the curves: {tensorboard} --logdir {loop.run_dir}")


if __name__ == "__main__":
    main()
