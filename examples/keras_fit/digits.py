"""The handwritten digits of these examples: scikit-learn's, or MNIST from a file.

python examples/keras_fit/train_step.py                          1,797 images of 8 x 8 pixels
python examples/keras_fit/train_step.py --data path/to/mnist.npz 60,000 images of 28 x 28 pixels
"""

import argparse

import numpy as np


def load(arguments=None):
    """Return images, float32 of shape (n, side, side, 1) from 0 to 1, and int64 labels."""
    parser = argparse.ArgumentParser(description="One way to customize fit().")
    parser.add_argument("--data", help="an .npz file with x_train and y_train")
    path = parser.parse_args(arguments).data
    if path is None:
        from sklearn.datasets import load_digits

        pixels, labels = load_digits(return_X_y=True)
        images = pixels.reshape(-1, 8, 8, 1) / 16
    else:
        with np.load(path) as arrays:
            images, labels = arrays["x_train"][..., None] / 255, arrays["y_train"]
    return images.astype("float32"), labels.astype("int64")


def split(images, labels):
    """Return (x, y) to train on and (x, y) to validate on: every fifth digit, as flat vectors."""
    held_out = np.arange(len(images)) % 5 == 4
    flat = images.reshape(len(images), -1)
    return (flat[~held_out], labels[~held_out]), (flat[held_out], labels[held_out])
