"""The same training by fitkit, in the form in which the hand-written loops report."""

import keras
import numpy as np
from torch import nn

from fitkit import FitLoop, TensorLoader, supervised
from tests.parity import hand_loops as hand
from tests.parity.digits import digit_loaders


def keras_adam():
    return keras.optimizers.Adam(hand.LEARNING_RATE)


def keras_crossentropy():
    return keras.losses.CategoricalCrossentropy(from_logits=True)


def accuracy():
    return keras.metrics.CategoricalAccuracy(name="accuracy")


def seeded(make_model, *loaders, seed=1):
    """A model and its loaders, the same for every contestant."""
    keras.utils.set_random_seed(seed)
    return make_model(), *digit_loaders(*loaders)


def tensor_loaders(num_train=300, num_val=75):
    """Loaders whose order is their own affair: no global random state is drawn from."""
    loaders = digit_loaders(num_train, num_val)
    train, val = (TensorLoader(*loader.dataset.tensors, shuffle=True, seed=3) for loader in loaders)
    return train, val


def fit(model, train, val=None, *, epochs, loss=None, optimizer=None, metrics=()):
    """Train with `supervised`, by default Keras's loss and Adam; report as a hand loop does."""
    stack = supervised(
        loss=loss or keras_crossentropy(), optimizer=optimizer or keras_adam(), metrics=metrics
    )
    history = FitLoop(model, train, val, callbacks=stack).fit(epochs=epochs)
    ignored = {"epoch", "num_updates", "lr"}
    rows = [{k: v for k, v in row.items() if k not in ignored} for row in history.rows]
    return hand.HandRun(hand.weights_of(model), rows)


def torch_crossentropy():
    return nn.CrossEntropyLoss()


def state_of(model):
    """Weights, running means and variances, seeds of layers: everything a step can change."""
    if isinstance(model, keras.Model):
        return [keras.ops.convert_to_numpy(variable) for variable in model.variables]
    return [tensor.numpy().copy() for tensor in model.state_dict().values()]


def same_weights(one, other):
    """Whether two lists of arrays are equal to the bit."""
    return len(one) == len(other) and all(map(np.array_equal, one, other))


def assert_same(ours, by_hand):
    """Weights and metrics equal to the bit; losses, means of up to 50 batches, to 1e-12."""
    assert same_weights(ours.weights, by_hand.weights)
    assert len(ours.epochs) == len(by_hand.epochs)
    for mine, theirs in zip(ours.epochs, by_hand.epochs, strict=True):
        assert mine.keys() == theirs.keys()
        for name, value in theirs.items():
            relative = 1e-12 if name.endswith("loss") else 0.0
            assert abs(mine[name] - value) <= relative * abs(value), name
