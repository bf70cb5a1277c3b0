"""Recorded steps on a CUDA device: run by `KERAS_TORCH_DEVICE=cuda pytest -m gpu`."""

import keras
import pytest
import torch

from fitkit import Callback, Event, FitLoop, Record, TensorLoader, supervised

pytestmark = pytest.mark.gpu

BACKENDS = ["interpret", "inductor", "cudagraph"]


def make_loop(*callbacks, dropout=0.0):
    """A loop from a fixed seed: 5 train batches, the last one ragged, and 2 val batches."""
    keras.utils.set_random_seed(0)
    x, y = torch.randn(150, 20), torch.nn.functional.one_hot(torch.arange(150) % 4, 4).float()
    hidden = [keras.layers.Dense(32, activation="relu"), keras.layers.BatchNormalization()]
    model = keras.Sequential(
        [keras.Input((20,)), *hidden, keras.layers.Dropout(dropout), keras.layers.Dense(4)]
    )
    stack = supervised(
        loss=keras.losses.CategoricalCrossentropy(from_logits=True),
        optimizer=keras.optimizers.Adam(1e-2),
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
    )
    train = TensorLoader(x, y, batch_size=32, shuffle=True)
    val = TensorLoader(x[:64], y[:64], batch_size=32)
    return FitLoop(model, train, val, callbacks=[stack, *callbacks])


def assert_close(loop, reference, tolerance):
    for ours, theirs in zip(loop.model.weights, reference.model.weights, strict=True):
        torch.testing.assert_close(ours.value, theirs.value, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("backend", BACKENDS)
def test_replays_equal_eager_with_ragged_batches_and_validation(backend):
    eager, recorded = make_loop(), make_loop(Record(backend, strict=True))
    eager.fit(epochs=6)
    recorded.fit(epochs=6)
    assert_close(recorded, eager, 1e-6 if backend == "interpret" else 1e-3)
    for name in ("loss", "val_loss"):
        assert recorded.history[name] == pytest.approx(eager.history[name], rel=1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_learning_rate_set_by_a_callback_reaches_the_next_replay(backend):
    def decay(loop):
        @loop.on(Event.BATCH_END)
        def halve(state):
            optimizer_of(loop).learning_rate = 1e-2 / (1 + state.num_updates)

        return loop

    eager, recorded = decay(make_loop()), decay(make_loop(Record(backend)))
    eager.fit(epochs=4)
    recorded.fit(epochs=4)
    assert_close(recorded, eager, 1e-6 if backend == "interpret" else 1e-3)


def optimizer_of(loop):
    return next(c.optimizer for c in loop.callbacks if type(c).__name__ == "KerasApply")


@pytest.mark.parametrize("backend", BACKENDS)
def test_dropout_draws_a_fresh_mask_in_every_replay(backend):
    class Outputs(Callback):
        needs = frozenset({"outputs"})

        def __init__(self):
            self.seen = []

        def on_batch_end(self, state):
            if state.phase == "train":
                self.seen.append(state.outputs.clone())

    outputs = Outputs()
    loop = make_loop(Record(backend), outputs, dropout=0.5)
    optimizer_of(loop).learning_rate = 0.0  # the weights stay, only the masks can differ
    loop.train_loader = [(torch.ones(32, 20), torch.eye(4)[torch.arange(32) % 4])] * 12
    loop.fit(epochs=1)
    late = outputs.seen[6:]
    assert all(not torch.equal(a, b) for a, b in zip(late, late[1:], strict=False))


def test_published_values_survive_the_next_replay():
    losses = []
    loop = make_loop(Record("cudagraph"))
    loop.on(Event.BATCH_END)(lambda state: losses.append(state.loss))
    eager_losses = []
    eager = make_loop()
    eager.on(Event.BATCH_END)(lambda state: eager_losses.append(state.loss))
    loop.fit(epochs=4)
    eager.fit(epochs=4)
    assert [float(a) for a in losses] == pytest.approx([float(a) for a in eager_losses], rel=1e-3)


def test_a_replayed_step_waits_for_nothing():
    """Steps between the audits: 40 and 41 of an epoch of 60 equal batches."""
    loop = make_loop(Record("cudagraph"))
    loop.train_loader = TensorLoader(torch.randn(1920, 20), torch.eye(4)[torch.arange(1920) % 4])
    modes = {40: "error", 42: "default"}

    @loop.on(Event.BATCH_BEGIN)
    def watch(state):
        if state.batch_index in modes:
            torch.cuda.set_sync_debug_mode(modes[state.batch_index])

    try:
        loop.fit(epochs=1)
    finally:
        torch.cuda.set_sync_debug_mode("default")
