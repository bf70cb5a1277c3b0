"""Loops to compare: the same training twice, eager and recorded, from the same seeds."""

import gc
import random
import warnings
from types import SimpleNamespace

import keras
import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensor

from fitkit import Record, TensorLoader, supervised


def data(num=40, width=6, classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(num, width, generator=generator)
    return x, torch.randint(0, classes, (num,), generator=generator)


def loader(num=40, batch_size=8, **options):
    return TensorLoader(*data(num), batch_size=batch_size, **options)


def torch_model(*middle):
    linear = torch.nn.Linear
    return torch.nn.Sequential(linear(6, 8), torch.nn.ReLU(), *middle, linear(8, 4))


def keras_model(*middle):
    first = keras.layers.Dense(8, activation="relu")
    return keras.Sequential([keras.Input((6,)), first, *middle, keras.layers.Dense(4)])


def torch_stack(model, optimizer=None, loss=None, metrics=()):
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return supervised(
        loss=loss or torch.nn.CrossEntropyLoss(), optimizer=optimizer, metrics=metrics
    )


def keras_stack(model, optimizer=None, loss=None, metrics=()):
    return supervised(
        loss=loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        optimizer=optimizer or keras.optimizers.Adam(1e-2),
        metrics=metrics,
    )


def run(make, record, *, epochs=3, drive=None):
    """Make a loop, with or without Record, run it, and tell what came out.

    `make(loop_holder)` returns a loop. Everything is seeded the same for every call.
    """
    keras.utils.clear_session()  # names decide the order of parameters
    keras.utils.set_random_seed(1)
    loop = make()
    if record is not None:
        loop.attach(record)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = drive(loop) if drive else loop.fit(epochs=epochs)
    recordings = list(record.recordings.values()) if record is not None else []
    told = [str(w.message) for w in caught if "Record" in str(w.message)]
    return SimpleNamespace(
        loop=loop,
        result=result,
        record=record,
        rows=[dict(row) for row in loop.history.rows],
        state=[tensor.detach().clone() for tensor in tensors_of(loop)],
        random=(torch.get_rng_state().sum().item(), random.random(), np.random.rand()),
        warnings=told,
        report=loop.record_report(),
        replays=sum(r.program.num_replays for r in recordings if r.program),
        refusals=[str(r.refusal) for r in recordings if r.refusal is not None],
    )


def tensors_of(loop):
    """Weights, buffers and Keras variables of the model, and the slots of the optimizers."""
    found = [*loop.model.parameters(), *loop.model.buffers()]
    for callback in loop.callbacks:
        optimizer = getattr(callback, "optimizer", None)
        if isinstance(optimizer, torch.optim.Optimizer):
            slots = [optimizer.state[p] for g in optimizer.param_groups for p in g["params"]]
            found += [v for slot in slots for v in slot.values() if isinstance(v, torch.Tensor)]
        elif optimizer is not None:
            found += [variable.value for variable in optimizer.variables]
    return found


def same(one, other):
    """Whether two runs ended in the same state, bit by bit, with the same logs."""
    return (
        len(one.state) == len(other.state)
        and all(map(torch.equal, one.state, other.state))
        and one.rows == other.rows
        and one.random == other.random
    )


def compare(make, *, epochs=3, drive=None, replays=True, close=False, **options):
    """Run eagerly and recorded, demand equal ends; return the recorded run.

    Args:
        replays: Whether there must be replays (True), must be none (False), or either (None).
        close: Equal within a rounding is enough (`alpha=tensor` is rewritten).
    """
    eager = run(make, None, epochs=epochs, drive=drive)
    recorded = run(make, Record("interpret", **options), epochs=epochs, drive=drive)
    if close:
        assert all(
            torch.allclose(a, b, 1e-5, 1e-6)
            for a, b in zip(eager.state, recorded.state, strict=True)
        )
    else:
        assert same(eager, recorded)
    if replays is not None:
        assert bool(recorded.replays) == replays, (recorded.warnings, recorded.refusals)
    assert_nothing_fake(recorded.record)
    return recorded


def assert_nothing_fake(*records):
    """Once its programs are gone, nothing that a trace has made is alive: no leak anywhere."""
    for record in records:
        for recording in record.recordings.values():
            recording.program = None
    gc.collect()
    leaks = [thing for thing in gc.get_objects() if type(thing) is FakeTensor]
    assert not leaks, [_holders_of(leak) for leak in leaks[:3]]


def _holders_of(leak):
    return [
        list(holder) if isinstance(holder, dict) else type(holder).__name__
        for holder in gc.get_referrers(leak)
    ]
