"""Thousands of steps leave memory as it was, and nothing outlives the loop."""

import gc
import weakref
from pathlib import Path

import keras
import numpy as np
import pytest
import torch
from torch import nn

from fitkit import Callback, Event, FitLoop, Phase, TensorLoader, supervised

STATM = Path("/proc/self/statm")
X, Y = torch.randn(80, 4), torch.randn(80, 1)


def live_tensors():
    # type(), because isinstance asks objects for their __class__, and some of torch then warn
    return [o for o in gc.get_objects() if issubclass(type(o), torch.Tensor)]


class Gauge(Callback):
    """Writes down live tensors and resident kilobytes every 250 updates, always in training."""

    phases = frozenset({Phase.TRAIN})

    def __init__(self):
        self.updates, self.tensors, self.kilobytes = [], [], []

    def on_batch_end(self, state):
        if state.num_updates % 250 == 0:
            gc.collect()
            self.updates.append(state.num_updates)
            self.tensors.append(len(live_tensors()))
            self.kilobytes.append(int(STATM.read_text().split()[1]) * 4)


class Keeps(Callback):
    """What must not happen: a callback that keeps the graph of every step."""

    def __init__(self):
        self.losses = []

    def on_loss_ready(self, state):
        self.losses.append(state.loss)


def make_loop(*extra):
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    loader = TensorLoader(X, Y, batch_size=8, shuffle=True)
    callbacks = [*supervised(loss=nn.MSELoss(), optimizer=optimizer), *extra]
    return FitLoop(model, loader, TensorLoader(X, Y), callbacks=callbacks)


@pytest.mark.skipif(not STATM.exists(), reason="reads /proc")
def test_5000_steps_leave_memory_flat():
    gauge = Gauge()
    make_loop(gauge).fit(max_steps=5000)
    warm = [i for i, updates in enumerate(gauge.updates) if updates > 1000]
    assert len({gauge.tensors[i] for i in warm}) == 1
    slope = np.polyfit([gauge.updates[i] for i in warm], [gauge.kilobytes[i] for i in warm], 1)[0]
    print(f"{slope:.4f} KB per step, {gauge.tensors[-1]} live tensors")
    assert slope < 1


@pytest.mark.skipif(not STATM.exists(), reason="reads /proc")
def test_a_callback_that_keeps_graphs_is_seen():
    gauge = Gauge()
    make_loop(gauge, Keeps()).fit(max_steps=750)
    assert gauge.tensors[-1] - gauge.tensors[0] >= 500


def test_history_and_state_hold_no_graph():
    loop = make_loop()
    history = loop.fit(epochs=3)
    assert all(isinstance(v, int | float) for row in history.rows for v in row.values())
    assert all(isinstance(v, float) for v in loop.state.logs.values())
    gc.collect()
    assert [tensor for tensor in live_tensors() if tensor.grad_fn is not None] == []


def test_outputs_and_losses_of_a_step_are_gone_at_its_end():
    loop = make_loop()
    kept = []

    @loop.on(Event.LOSS_READY)
    def keep(state):
        kept.append(weakref.ref(state.outputs))

    @loop.on(Event.BATCH_END)
    def look(state):
        assert kept[-1]() is None
        assert state.loss.grad_fn is None

    loop.fit(epochs=1)
    assert len(kept) == 10


def keras_loop():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    callbacks = supervised(loss="mse", optimizer="adam", metrics=[keras.metrics.MeanSquaredError()])
    return FitLoop(model, TensorLoader(X, Y), TensorLoader(X, Y), callbacks=callbacks)


@pytest.mark.parametrize("make", [make_loop, keras_loop])
def test_the_loop_and_the_model_are_freed(make):
    loop = make()
    loop.fit(epochs=1)
    loop.evaluate()
    loop.predict(loop.train_loader)
    dead = [weakref.ref(loop), weakref.ref(loop.model), weakref.ref(loop.train_loader)]
    del loop
    gc.collect()
    assert [reference() for reference in dead] == [None] * 3


def test_a_loop_is_freed_without_the_collector():
    """A model of gigabytes must not wait on the device for the next collection of cycles."""
    loop = make_loop()
    loop.fit(epochs=1)
    dead = [weakref.ref(loop), weakref.ref(loop.model)]
    gc.collect()
    gc.disable()
    try:
        del loop
        assert [reference() for reference in dead] == [None] * 2
    finally:
        gc.enable()
