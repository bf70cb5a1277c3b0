"""Which callbacks of Keras only watch in their batch hooks, so that Record need not look."""

import keras
import pytest

from fitkit.tune.keras_hooks import watches

callbacks = keras.callbacks


class Quiet(callbacks.EarlyStopping):
    def on_epoch_end(self, epoch, logs=None):
        pass


class Own(callbacks.TerminateOnNaN):
    def on_train_batch_begin(self, batch, logs=None):
        self.model.trainable = False


def assigned(name):
    callback = callbacks.TerminateOnNaN()
    setattr(callback, name, lambda batch, logs=None: None)
    return callback


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (callbacks.TerminateOnNaN, True),
        (callbacks.EarlyStopping, True),
        (lambda: callbacks.ModelCheckpoint("m.keras", save_freq=3), True),
        (Quiet, True),
        (Own, False),
        (lambda: assigned("on_train_batch_end"), False),
        (lambda: assigned("on_batch_end"), False),  # the older name of the same
        (lambda: callbacks.LambdaCallback(on_train_batch_end=print), False),
        (lambda: callbacks.LambdaCallback(on_epoch_end=print), True),
    ],
)
def test_what_may_change_a_step_does_not_only_watch(make, expected):
    assert watches(make()) is expected
