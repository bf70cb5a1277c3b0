"""Digit-like data and the 784-64-64-10 MLP in the forms that the hand-written loops train."""

import keras
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def digit_loaders(num_train=1590, num_val=330, batch_size=32, seed=0):
    """Return a shuffled train loader and a val loader of digit-like data, one-hot float targets.

    The defaults give 50 train batches and 11 val batches; the last of each is ragged (22 and 10).
    Every fourth label is drawn anew, so that the loss stays away from zero, where all loops agree.
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, num_train + num_val)
    strokes = rng.uniform(0, 255, (10, 784)) * (rng.random((10, 784)) < 0.2)
    images = np.clip(strokes[labels] + rng.normal(0, 60, (len(labels), 784)), 0, 255)
    labels[::4] = rng.integers(0, 10, len(labels[::4]))
    x = torch.from_numpy(images.astype("float32"))
    y = torch.from_numpy(np.eye(10, dtype="float32")[labels])
    train, val = (
        TensorDataset(x[:num_train], y[:num_train]),
        TensorDataset(x[num_train:], y[num_train:]),
    )
    return DataLoader(train, batch_size, shuffle=True), DataLoader(val, batch_size)


def keras_mlp() -> keras.Model:
    inputs = keras.Input((784,))
    hidden = keras.layers.Dense(64, activation="relu")(inputs)
    hidden = keras.layers.Dense(64, activation="relu")(hidden)
    return keras.Model(inputs, keras.layers.Dense(10)(hidden))


class ActivityPenalty(keras.layers.Layer):
    """Pass the inputs on; add `rate * mean(inputs ** 2)` to the losses of the model."""

    def __init__(self, rate, **kwargs):
        super().__init__(**kwargs)
        self.rate = rate

    def call(self, inputs):
        self.add_loss(self.rate * torch.mean(inputs**2))
        return inputs


def penalised_mlp() -> keras.Model:
    """The same MLP with three added losses: two `add_loss` layers and one kernel regularizer."""
    inputs = keras.Input((784,))
    hidden = keras.layers.Dense(64, activation="relu", kernel_regularizer="l2")(inputs)
    hidden = ActivityPenalty(1e-4)(hidden)
    hidden = keras.layers.Dense(64, activation="relu")(hidden)
    hidden = ActivityPenalty(1e-3)(hidden)
    return keras.Model(inputs, keras.layers.Dense(10)(hidden))


def torch_mlp() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)
    )


def keras_noisy_mlp():
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((784,)),
            layers.Dense(32, activation="relu"),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            layers.Dense(10),
        ]
    )


def torch_noisy_mlp():
    return nn.Sequential(
        nn.Linear(784, 32), nn.ReLU(), nn.BatchNorm1d(32), nn.Dropout(0.5), nn.Linear(32, 10)
    )
