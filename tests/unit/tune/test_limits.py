"""Limits bound what a run does, and a rehearsed validation leaves no trace."""

import random
import time

import keras
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from fitkit import (
    Callback,
    Checkpoint,
    ConfigError,
    Event,
    KerasCallbacks,
    Limits,
    Phase,
    Predictions,
    Record,
)
from tests.unit.tune.trainings import KINDS, MODES, batches, data, loop_of


def test_steps_are_counted_over_all_calls():
    loop = loop_of("torch", Limits(max_steps=7))
    loop.fit(epochs=1)
    loop.fit(epochs=5)
    assert loop.state.num_updates == 7
    assert loop.state.stop_reason == "Limits(max_steps=7): 7 updates done"
    loop.fit(epochs=1)
    assert loop.state.num_updates == 7


def test_time_ends_a_run():
    loop = loop_of("torch", Limits(max_time=0.05))
    loop.on(Event.BATCH_END)(lambda state: time.sleep(0.02))
    loop.fit(epochs=100)
    assert loop.state.num_batches in (2, 3, 4)
    assert "max_time=0.05" in loop.state.stop_reason


def seen(loop):
    """The rows of each pass, as the model gets them."""
    found = {}

    @loop.on(Event.BATCH_END, phases=list(Phase))
    def note(state):
        found.setdefault((state.phase.value, state.epoch), []).append(state.inputs.clone())

    return found


@pytest.mark.parametrize("mode", MODES)
def test_batches_per_epoch(mode):
    loop = loop_of("torch", Limits(train_batches=3, val_batches=1), mode=mode)
    found = seen(loop)
    history = loop.fit(epochs=2)
    assert loop.state.num_batches == 6
    x, _ = data()
    assert torch.equal(torch.cat(found["train", 1]), x[:24])
    assert torch.equal(torch.cat(found["val", 1]), data(16)[0][:8])
    assert "val_loss" in history
    assert len(loop.train_loader) == 5  # the user's loaders are back
    assert loop.evaluate()["loss"] != history["val_loss"][-1]  # and evaluate reads all of them


def test_the_bounded_training_is_that_on_fewer_rows():
    bounded = loop_of("torch", Limits(train_batches=3), train=batches(40))
    plain = loop_of("torch", train=batches(24))
    bounded.fit(epochs=2)
    plain.fit(epochs=2)
    assert all(map(torch.equal, bounded.model.parameters(), plain.model.parameters()))


def test_the_limit_of_an_unknown_length_is_no_length():
    class Endless:
        def __iter__(self):
            while True:
                yield data(8)

    loop = loop_of("torch", Limits(train_batches=4), train=Endless())
    expected = []
    loop.on(Event.BATCH_END)(lambda state: expected.append(state.num_batches_expected))
    loop.fit(epochs=2)
    assert expected == [None] * 8


def test_a_fast_dev_run():
    loop = loop_of("torch", Limits(fast_dev_run=True))
    loop.fit(epochs=10)
    assert (loop.state.num_batches, loop.state.num_epochs) == (1, 1)
    assert "val_loss" in loop.history
    assert loop.state.stop_reason == "fast_dev_run: 1 batches done"
    three = loop_of("torch", Limits(fast_dev_run=3))
    three.fit(epochs=10)
    assert three.state.num_batches == 3


def test_a_real_run_does_not_go_on_from_a_fast_dev_run(tmp_path):
    ends = []
    for trial in (True, False):
        (folder := tmp_path / str(trial)).mkdir()
        for limits in (Limits(fast_dev_run=True), Limits()):
            limits.is_trial = limits.is_trial and trial  # without the protection
            loop = loop_of("torch", Checkpoint(folder), limits)
            loop.fit(max_steps=5, resume=folder if any(folder.glob("step-*")) else None)
        ends.append(loop.resumed_from)
    assert ends[0] is None
    assert ends[1] is not None


@pytest.mark.parametrize("plain", [True, False])
def test_overfitting_repeats_the_same_batches(plain):
    x, y = data()
    rows = TensorDataset(x, y)
    collate = None if plain else torch.utils.data.default_collate
    loader = DataLoader(rows, 8, shuffle=True, collate_fn=collate)
    if not plain:
        loader = [batch for batch in loader]  # noqa: C416  # any iterable of batches
    loop = loop_of("torch", Limits(overfit_batches=2), train=loader)
    found = seen(loop)
    loop.fit(epochs=30)
    first = torch.cat(found["train", 0])
    assert len(first) == 16
    assert all(torch.equal(torch.cat(found["train", n]), first) for n in range(30))
    assert torch.equal(torch.cat(found["val", 7]), first)
    assert loop.history["val_loss"][-1] < loop.history["val_loss"][0] / 2


@pytest.mark.filterwarnings("ignore:Limits.overfit_batches=. goes on")
def test_overfitting_goes_on_after_a_resume(tmp_path):
    """The run is still one of the val_loader that it does not read."""

    def make(folder):
        loop = loop_of("torch", Limits(overfit_batches=2), Checkpoint(folder, every=3))
        loop.val_loaders = {"": list(batches(24))}  # of another kind than the train_loader
        return loop

    whole = make(tmp_path / "whole")
    whole.fit(epochs=3)
    make(tmp_path / "cut").fit(max_steps=3)
    resumed = make(tmp_path / "cut")
    resumed.fit(epochs=3, resume=tmp_path / "cut")
    assert resumed.history.rows == whole.history.rows
    assert all(map(torch.equal, resumed.model.parameters(), whole.model.parameters()))


# -- the rehearsed validation


class Noisy(torch.nn.Module):
    """Draws random numbers in every mode, from torch, Python and numpy."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 1)

    def forward(self, x):
        return self.linear(x) + 0.01 * (torch.randn(len(x), 1) + random.random() + np.random.rand())


class Listening(Callback):
    """Hears everything outside of the step."""

    def __init__(self):
        self.heard = []

    def on_epoch_begin(self, state):
        self.heard.append("epoch begin")

    def on_batch_end(self, state):
        self.heard.append(f"{state.phase} {state.batch_index}")

    def on_pass_end(self, state):
        self.heard.append(f"{state.phase} end")


def noisy_loop(*callbacks):
    from fitkit import FitLoop, supervised

    keras.utils.set_random_seed(1)
    model = Noisy()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    val = DataLoader(TensorDataset(*data(24)), 8, shuffle=True)
    train = DataLoader(TensorDataset(*data()), 8, shuffle=True)
    loop = FitLoop(model, train, val)
    loop.attach(supervised(loss=torch.nn.MSELoss(), optimizer=optimizer), *callbacks)
    return loop


def test_the_rehearsal_leaves_no_trace():
    plain_ears, ears, collected = Listening(), Listening(), Predictions()
    plain = noisy_loop(plain_ears)
    plain.fit(epochs=2)
    random_after = (torch.rand(1), random.random(), np.random.rand())
    looked = noisy_loop(ears, collected, Limits(sanity_batches=2))
    calls = []
    looked.model.register_forward_hook(lambda *_: calls.append(looked.state.num_batches))
    history = looked.fit(epochs=2)
    assert random_after == (torch.rand(1), random.random(), np.random.rand())
    assert calls[:2] == [0, 0]  # it did happen, before the first batch
    assert len(calls) == 2 + 2 * (5 + 3)
    assert ears.heard == plain_ears.heard
    assert history.rows == plain.history.rows
    assert all(map(torch.equal, plain.model.parameters(), looked.model.parameters()))
    assert collected.passes["val"].outputs.shape == (24, 1)


def test_a_rehearsal_that_is_not_undone_is_seen(monkeypatch):
    from contextlib import nullcontext

    from fitkit.tune import limits

    monkeypatch.setattr(limits, "untouched", lambda *_: nullcontext())
    plain = noisy_loop()
    plain.fit(epochs=1)
    looked = noisy_loop(Limits(sanity_batches=2))
    looked.fit(epochs=1)
    assert not torch.equal(next(plain.model.parameters()), next(looked.model.parameters()))


@pytest.mark.parametrize("kind", KINDS)
def test_the_rehearsal_leaves_keras_callbacks_alone(kind):
    heard = []
    ears = keras.callbacks.LambdaCallback(on_test_batch_end=lambda batch, logs: heard.append(batch))
    extra = [KerasCallbacks([ears])] if kind == "keras" else []
    plain = loop_of(kind).fit(epochs=2)
    looked = loop_of(kind, Limits(sanity_batches=1), *extra).fit(epochs=2)
    assert plain.rows == looked.rows
    assert heard == ([0, 1] * 2 if kind == "keras" else [])


def test_the_rehearsal_finds_a_broken_validation_before_training():
    loop = loop_of("torch", Limits(sanity_batches=1))
    loop.val_loaders = {"": batches(16), "bad": [(torch.zeros(8, 3), torch.zeros(8, 1))]}
    with pytest.raises(RuntimeError):
        loop.fit(epochs=1)
    assert loop.state.num_batches == 0
    assert loop.state.epoch == 0


def test_the_rehearsal_keeps_recorded_programs():
    loop = loop_of("torch", Limits(sanity_batches=1), mode="recorded")
    loop.fit(epochs=2)
    record = next(c for c in loop.callbacks if isinstance(c, Record))
    assert sum(r.program is not None for r in record.recordings.values()) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        *[
            ({name: value}, [f"{name}={value!r}"])
            for name in ("max_steps", "train_batches", "val_batches", "sanity_batches")
            for value in (0, -1, 1.5, True)
        ],
        ({"fast_dev_run": -1}, ["fast_dev_run=-1"]),
        ({"max_time": 0}, ["max_time"]),
        ({"max_time": float("nan")}, ["max_time=nan"]),
        ({"fast_dev_run": True, "train_batches": 3}, ["fast_dev_run", "train_batches"]),
        ({"overfit_batches": 1, "val_batches": 3}, ["overfit_batches", "val_batches"]),
    ],
)
def test_wrong_arguments_are_refused(arguments, words):
    with pytest.raises(ConfigError) as caught:
        Limits(**arguments)
    first = str(caught.value).splitlines()[0]
    assert len(first) <= 120
    assert all(word in first for word in words)


def test_a_second_one_is_refused():
    with pytest.raises(ConfigError, match="both Limits"):
        loop_of("torch", Limits(max_steps=3), Limits(train_batches=3))


def test_the_loaders_come_back_after_an_error():
    loop = loop_of("torch", Limits(train_batches=2))

    @loop.on(Event.BATCH_END)
    def fail(state):
        raise OSError("broken")

    with pytest.raises(OSError, match="broken"):
        loop.fit(epochs=1)
    assert len(loop.train_loader) == 5
