"""When Checkpoint saves, what it keeps, and the ways out of a checkpoint."""

import math
import threading
import warnings

import keras
import numpy as np
import pytest
import torch

from fitkit import (
    EMA,
    Accumulate,
    Checkpoint,
    CheckpointWriteError,
    ConfigError,
    CSVLogger,
    Event,
    FitLoop,
    TensorBoard,
    TensorLoader,
    supervised,
)
from fitkit.checkpoint import export_keras, load_weights_into
from fitkit.checkpoint.__main__ import main
from fitkit.store import Store, load
from fitkit.store.codec import Codec, decode, parse, to_json

X, Y = torch.randn(40, 4), torch.randn(40, 1)


def make_loop(folder, *extra, model=None, val=True, validate="1 epoch", **options):
    model = model or torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    stack = supervised(loss=torch.nn.MSELoss(), optimizer=optimizer, validate=validate)
    batches = TensorLoader(X, Y, batch_size=4)
    return FitLoop(
        model,
        batches,
        batches if val else None,
        callbacks=[*stack, *extra, Checkpoint(**options)],
        run_dir=folder,
    )


def steps(folder):
    return [int(name[5:13]) for name in Store(folder / "checkpoints").names()]


def test_a_value_that_cannot_come_is_told_before_anything_is_trained(tmp_path):
    loop = make_loop(tmp_path, val=False, monitor="val_loss")
    with pytest.raises(ConfigError, match="waits for 'val_loss', but the loop has no val_loader"):
        loop.fit(epochs=1)
    assert loop.state.num_updates == 0


def test_a_value_of_ones_own_may_be_called_as_those_of_validation(tmp_path):
    loop = make_loop(tmp_path, val=False, monitor="val_own", mode="min")
    loop.on(Event.EPOCH_END)(lambda state: state.logs.update(val_own=float(state.epoch)))
    loop.fit(epochs=2)
    assert loop.callbacks[-2].best.name == "step-00000010-epoch-0001"
    loop = make_loop(tmp_path / "b", val=False, monitor="val_own", mode="min")
    loop.on(Event.EPOCH_END)(lambda state: None)  # it might have logged it
    with pytest.raises(ConfigError, match="'val_own'.*\n.*loss, lr.*\n.* or pass a val_loader"):
        loop.fit(epochs=1)


def test_an_epoch_without_a_validation_is_saved_all_the_same(tmp_path):
    loop = make_loop(tmp_path, monitor="val_loss", validate="2 epochs", keep_last=None)
    loop.fit(epochs=4)
    assert steps(tmp_path) == [10, 20, 30, 40]
    assert loop.callbacks[-1].best.name[5:13] in ("00000020", "00000040")
    loop = make_loop(tmp_path / "b", monitor="val_los", mode="min", validate="2 epochs")
    with pytest.raises(ConfigError, match="'val_los'.*\n.*\nDid you mean 'val_loss'"):
        loop.fit(epochs=4)
    assert loop.state.num_epochs == 2


def values_saved(folder):
    metas = Store(folder / "checkpoints").metas().values()
    return {meta["counters"]["num_updates"]: meta["monitored"] for meta in metas}


def test_a_value_is_that_of_the_weights_it_is_saved_with(tmp_path):
    """10 updates per epoch, validated after 4, 8, 12, saved after 2, 4, 6, and where a run ends."""
    options = {"monitor": "val_loss", "validate": 4, "every": 2, "keep_last": None}
    whole = make_loop(tmp_path / "whole", **options)
    whole.fit(max_steps=14)
    saved = values_saved(tmp_path / "whole")
    assert list(saved) == [2, 4, 6, 8, 10, 12, 14]
    assert [update for update, value in saved.items() if value is not None] == [4, 8, 12]
    with torch.no_grad():
        for update in (4, 8, 12):
            found = list((tmp_path / "whole" / "checkpoints").glob(f"step-{update:08}-*"))
            load_weights_into(whole.model, found[0])
            loss = torch.nn.functional.mse_loss(whole.model(X), Y).item()
            assert saved[update] == pytest.approx(loss, rel=1e-6)

    make_loop(tmp_path / "cut", **options).fit(max_steps=5)
    make_loop(tmp_path / "cut", **options).fit(max_steps=7, resume="auto")  # goes on after 5
    saved = values_saved(tmp_path / "cut")
    assert list(saved) == [2, 4, 5, 6, 7]
    assert [update for update, value in saved.items() if value is not None] == [4]


def test_that_no_checkpoint_can_be_best_is_told(tmp_path):
    """Saved after 10 and 20 updates, validated after 3, 6, 9: none is what was validated."""
    loop = make_loop(tmp_path, monitor="val_loss", validate=3)
    with pytest.warns(UserWarning, match="'val_loss' is of a validation before the last") as told:
        loop.fit(epochs=2)
    assert len(told) == 1
    assert loop.callbacks[-1].best is None


@pytest.mark.parametrize(("validate", "every", "told"), [("1 epoch", 99, 10), (4, 2, 4), (4, 5, 5)])
def test_a_misspelled_value_is_told_soon(tmp_path, validate, every, told):
    """At the first checkpoint after a validation, or the end of the epoch; not where a run ends."""
    loop = make_loop(tmp_path, monitor="val_los", mode="min", validate=validate, every=every)
    with pytest.raises(ConfigError, match="'val_los'.*\n.*\nDid you mean 'val_loss'"):
        loop.fit(epochs=4)
    assert loop.state.num_updates == told


def test_a_value_of_ones_own_may_come_after_a_validation_in_mid_epoch(tmp_path):
    loop = make_loop(tmp_path, monitor="val_own", mode="min", validate=4, every=5, keep_last=None)
    loop.on(Event.EPOCH_END)(lambda state: state.logs.update(val_own=1.0))
    loop.fit(epochs=2)
    assert values_saved(tmp_path) == {5: None, 10: 1.0, 15: None, 20: 1.0}


def test_a_value_of_ones_own_is_no_validation(tmp_path):
    def loop_with(folder, monitor):
        loop = make_loop(folder, monitor=monitor, mode="min", validate="2 epochs", keep_last=None)
        loop.on(Event.EPOCH_END)(lambda state: state.logs.update(val_own=1.0))
        return loop

    loop_with(tmp_path / "a", "val_loss").fit(epochs=4)
    metas = Store(tmp_path / "a" / "checkpoints").metas().values()
    assert [meta["monitored"] is None for meta in metas] == [True, False, True, False]
    misspelled = loop_with(tmp_path / "b", "val_los")
    with pytest.raises(ConfigError, match="'val_los'.*\n.*\n.*'val_loss'"):
        misspelled.fit(epochs=4)
    assert misspelled.state.num_epochs == 2  # told at the first validation, and not before


def test_a_value_computed_after_a_validation_is_absent_where_there_was_none(tmp_path):
    loop = make_loop(tmp_path, monitor="val_own", mode="min", validate="2 epochs", keep_last=None)

    @loop.on(Event.EPOCH_END)
    def log(state):
        if "val_loss" in state.logs:
            state.logs["val_own"] = 1.0

    loop.fit(epochs=4)
    metas = Store(tmp_path / "checkpoints").metas().values()
    assert [meta["monitored"] for meta in metas] == [None, 1.0, None, 1.0]


@pytest.mark.parametrize(
    ("every", "expected"),
    [
        ("1 epoch", [10, 20, 25]),
        ("2 epochs", [20, 25]),
        (4, [4, 8, 12, 16, 20, 24, 25]),  # 20 is the end of an epoch: one save, not two
        ("100 updates", [25]),  # where the run ends
    ],
)
def test_when_it_saves(tmp_path, every, expected):
    make_loop(tmp_path, every=every, keep_last=None).fit(max_steps=25)
    assert steps(tmp_path) == expected


def test_it_waits_for_the_end_of_a_window(tmp_path):
    loop = make_loop(tmp_path, Accumulate(3), every="100 epochs", keep_last=None)

    @loop.on(Event.BATCH_END)
    def ask(state):
        if state.num_batches == 4:  # the window closes with batch 6
            state.request(Event.SAVE)

    loop.fit(epochs=1)
    first = load(tmp_path / "checkpoints" / Store(tmp_path / "checkpoints").names()[0])
    assert first.meta["counters"]["num_batches"] == 6
    assert first.meta["counters"]["num_updates"] == 2


def test_a_stop_ends_with_the_window(tmp_path):
    loop = make_loop(tmp_path, Accumulate(3), every="100 epochs")

    @loop.on(Event.BATCH_END)
    def stop(state):
        if state.num_batches == 4:
            state.request_stop("enough")

    loop.fit(epochs=5)
    assert loop.state.num_batches == 6
    assert loop.state.num_updates == 2


def test_it_keeps_the_last_and_the_best(tmp_path):
    losses = iter([3.0, 1.0, math.nan, 2.0, 4.0, 5.0])
    loop = make_loop(tmp_path, keep_last=2, keep_best=2, monitor="val_figure", mode="min")

    @loop.on(Event.EPOCH_END)
    def log(state):
        state.logs["val_figure"] = next(losses)

    with pytest.warns(UserWarning, match="after 30 updates: val_figure is NaN"):
        loop.fit(epochs=6)
    assert steps(tmp_path) == [20, 40, 50, 60]
    checkpoint = loop.callbacks[-2]  # the last one is the function
    assert checkpoint.best.name == "step-00000020-epoch-0002"
    load_weights_into(torch.nn.Linear(4, 1), checkpoint.best)


def test_the_best_of_nothing(tmp_path):
    assert Checkpoint(monitor="loss").best is None  # not attached
    loop = make_loop(tmp_path)
    assert loop.callbacks[-1].best is None
    loop.fit(epochs=1)
    assert loop.callbacks[-1].best is None  # nothing is compared
    loop = make_loop(tmp_path / "b", monitor="loss")
    loop.fit(epochs=1)
    loop = make_loop(tmp_path / "b")  # there are values of a run before, of whatever that was
    loop.fit(epochs=2, resume="auto")
    assert loop.callbacks[-1].best is None


def test_in_a_thread_it_saves_the_same(tmp_path):
    threads = set(threading.enumerate())  # other tests, a progress bar for one, leave some
    torch.manual_seed(0)
    make_loop(tmp_path / "a", every=3, keep_last=None, async_=True).fit(epochs=2)
    torch.manual_seed(0)
    make_loop(tmp_path / "b", every=3, keep_last=None).fit(epochs=2)
    assert steps(tmp_path / "a") == steps(tmp_path / "b")
    for name in Store(tmp_path / "a" / "checkpoints").names():
        one, other = (load(tmp_path / each / "checkpoints" / name) for each in "ab")
        assert all(torch.equal(one.model[key], other.model[key]) for key in one.model)
    assert set(threading.enumerate()) <= threads


def test_a_disk_that_refuses_ends_the_run_or_warns(tmp_path, monkeypatch):
    def refuse(self, content):
        raise CheckpointWriteError("no space\nFree some.")

    monkeypatch.setattr(Store, "write", refuse)
    for threaded in (False, True):
        with pytest.raises(CheckpointWriteError):
            make_loop(tmp_path / f"a{threaded}", async_=threaded).fit(epochs=1)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            options = {"async_": threaded, "on_error": "warn"}
            make_loop(tmp_path / f"b{threaded}", **options).fit(epochs=3)
        assert len(told) == 3


def test_a_run_refused_in_a_used_folder_leaves_all_files_where_they_are(tmp_path):
    def files():
        return {path: path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()}

    def watched():
        return make_loop(tmp_path, CSVLogger(), TensorBoard())

    watched().fit(epochs=1)
    before = files()
    for _ in range(2):  # the lock was given back, too
        with pytest.raises(ConfigError, match="holds checkpoints of a run"):
            watched().fit(epochs=1)
        assert files() == before
    watched().fit(epochs=2, resume="auto")
    assert before.keys() <= files().keys()
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 3


def test_a_source_of_a_resume_stays(tmp_path):
    make_loop(tmp_path, keep_last=1).fit(epochs=1)
    make_loop(tmp_path, keep_last=1).fit(epochs=4, resume="auto")
    assert steps(tmp_path) == [10, 40]


@pytest.mark.parametrize("kind", ["torch", "keras"])
def test_the_weights_of_a_run_with_averages_are_these(kind, tmp_path):
    """They were validated; a resumed run goes on with those that trained."""

    def model_of():
        dense = keras.layers.Dense
        return keras.Sequential([keras.Input((4,)), dense(3), keras.layers.Dropout(0.5), dense(1)])

    model, ema = torch.nn.Linear(4, 1) if kind == "torch" else model_of(), EMA(0.9)
    loop = make_loop(tmp_path, ema, model=model, monitor="val_loss")
    loop.fit(epochs=1)
    other = torch.nn.Linear(4, 1) if kind == "torch" else model_of()
    load_weights_into(other, tmp_path, averaged=False)
    assert all(map(torch.equal, other.parameters(), model.parameters()))
    load_weights_into(other, tmp_path)
    with ema.averaged():
        assert all(map(torch.equal, other.parameters(), model.parameters()))
    assert not all(map(torch.equal, other.parameters(), model.parameters()))
    evaluated = FitLoop(other, callbacks=supervised(loss=torch.nn.MSELoss(), optimizer="sgd"))
    metas = Store(tmp_path / "checkpoints").metas().values()
    loss = evaluated.evaluate(TensorLoader(X, Y, batch_size=4))["loss"]
    assert [meta["monitored"] for meta in metas] == [loss]


def test_weights_of_keras_and_a_keras_file(tmp_path):
    def model():
        return keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])

    def values(of):
        return [weight.value.tolist() for weight in of.weights]

    trained, other = model(), model()
    make_loop(tmp_path, model=trained).fit(epochs=1)
    load_weights_into(other, tmp_path)
    assert values(other) == values(trained)
    export_keras(tmp_path / "model.keras", model(), tmp_path)
    assert values(keras.models.load_model(tmp_path / "model.keras")) == values(trained)


def test_the_command_inspects_and_verifies(tmp_path, capsys):
    make_loop(tmp_path).fit(epochs=1)
    assert main(["inspect", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "num_updates=10" in shown
    assert "weight  (1, 4) float32" in shown
    assert main(["verify", str(tmp_path)]) == 0
    digest = capsys.readouterr().out.split()[-1]
    assert main(["verify", str(tmp_path), "--digest", digest]) == 0
    assert main(["verify", str(tmp_path), "--digest", "0" * 64]) == 1
    path = next((tmp_path / "checkpoints").glob("step-*"))
    (path / "state.json").write_bytes(b"{}")
    assert main(["verify", str(tmp_path)]) == 1
    assert main(["verify", str(tmp_path / "none")]) == 1


VALUES = [
    *(
        None,
        True,
        3,
        10**30,
        0.1,
        -0.0,
        math.inf,
        "text",
        "$x",
        b"",
        b"bytes",
        (),
        (1, (2.5, None)),
    ),
    *({"a": {"b": [1, {}]}}, {1: "int", (1, 2): "tuple"}, {"$tensor": "no"}, [[], [None]]),
    *(np.float32(0.1), np.int64(3), np.bool_(True)),
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_values_return_with_their_type(value):
    codec = Codec()
    found = decode(parse(to_json(codec.encode(value, "x"))), codec.tensors)
    assert found == value
    assert type(found) is type(value)
    assert repr(found) == repr(value)


@pytest.mark.parametrize(
    "tensor",
    [
        *(torch.arange(6).view(2, 3).t(), torch.tensor(1.5), torch.empty(0, 3)),
        *(torch.tensor([True, False]), torch.randn(3, dtype=torch.bfloat16)),
        *(torch.randn(2, dtype=torch.complex64), torch.randn(2, dtype=torch.complex128).conj()),
        *(torch.ones(2, dtype=torch.uint64), torch.ones(2).to(torch.float8_e4m3fn)),
    ],
    ids=lambda t: f"{t.dtype} {tuple(t.shape)}",
)
def test_tensors_return(tensor, tmp_path):
    from fitkit.store import Content

    meta = {"counters": {"num_updates": 1, "epoch": 0}}
    path = Store(tmp_path).write(Content(meta, {"weight": tensor}, {"slot": [tensor]}))
    found = load(path)
    for each in (found.model["weight"], found.state["slot"][0]):
        assert each.dtype == tensor.dtype
        assert each.shape == tensor.shape
        assert each.resolve_conj().tolist() == tensor.resolve_conj().tolist()
