"""Keras's own `fit` on arrays, without a progress bar."""

import keras

from benchmarks.suite.task import Task


class EpochEnd(keras.callbacks.Callback):
    """Rings after every epoch. It has no hook for batches, which `fit` would have to wait for."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        """Ring."""
        self.task.tick()


class Nothing(keras.callbacks.Callback):
    """Does nothing twice a batch."""

    def on_train_batch_begin(self, batch: int, logs: object = None) -> None:
        """Do nothing."""

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        """Do nothing."""


def train(task: Task, *, jit_compile: bool = False) -> None:
    model, case = task.model, task.case
    x, y = task.x.numpy(), task.y.numpy()
    if case.kind == "gan":
        model.jit_compile = jit_compile  # the class has a compile() of its own
        data, validation = (x,), None
    else:
        model.compile(
            optimizer=task.keras_adam(),
            loss=task.keras_loss(),
            metrics=task.keras_metrics(),
            jit_compile=jit_compile,
        )
        data, validation = (x, y), (task.x_val.numpy(), task.y_val.numpy())
    model.fit(
        *data,
        batch_size=task.batch,
        epochs=task.epochs,
        shuffle=False,
        verbose=0,
        validation_data=validation if case.validates else None,
        callbacks=[*[Nothing() for _ in range(case.num_callbacks)], EpochEnd(task)],
    )
