"""Keras callbacks in a loop do what they do in `model.fit`, with equal values."""

import csv
import json

import keras
import numpy as np
import pytest
import torch

from fitkit import (
    ConfigError,
    FitLoop,
    KerasCallbacks,
    PrintLog,
    Record,
    TensorLoader,
    compiled,
    supervised,
)

# Keras reads its variables in a way that numpy 2 warns of
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
callbacks = keras.callbacks
EPOCHS = 6


def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(90, 6)).astype("float32")
    y = (x @ rng.normal(size=(6, 1)) + rng.normal(size=(90, 1))).astype("float32")
    return (x[:70], y[:70]), (x[70:], y[70:])


def build(**options):
    keras.utils.set_random_seed(3)
    hidden = keras.layers.Dense(8, activation="tanh")
    model = keras.Sequential([keras.Input((6,)), hidden, keras.layers.Dense(1)])
    optimizer = keras.optimizers.Adam(0.05, **options)
    model.compile(optimizer=optimizer, loss="mse", metrics=["mae"])
    return model


def values(model):
    return [v.value.detach().numpy().copy() for v in model.variables]


def by_keras(make, *, epochs=EPOCHS, **options):
    model, made = build(**options), make()
    train, val = data()
    history = model.fit(
        *train,
        batch_size=16,
        shuffle=False,
        epochs=epochs,
        validation_data=val,
        verbose=0,
        callbacks=made,
    )
    return model, made, history.history


def by_loop(make, *, epochs=EPOCHS, record=False, **options):
    model, made = build(**options), make()
    train, val = data()
    loop = FitLoop(model, TensorLoader(*train, batch_size=16), TensorLoader(*val, batch_size=16))
    history = callbacks.History()
    loop.attach(compiled(), KerasCallbacks([*made, history]))
    if record:
        loop.attach(Record("interpret"))
    loop.fit(epochs=epochs)
    return model, made, history.history


def assert_same(ours, theirs):
    for left, right in zip(values(ours[0]), values(theirs[0]), strict=True):
        np.testing.assert_array_equal(left, right)
    assert ours[2].keys() == theirs[2].keys()
    for name, series in theirs[2].items():
        np.testing.assert_allclose(ours[2][name], series, rtol=1e-6, err_msg=name)


def schedule(epoch, rate):
    return rate * 0.5 if epoch % 2 else rate


MAKERS = {
    "none": list,
    "early stopping": lambda: [
        callbacks.EarlyStopping(patience=0, monitor="val_mae", restore_best_weights=True)
    ],
    "early stopping on loss": lambda: [callbacks.EarlyStopping(min_delta=0.4, monitor="loss")],
    "plateau": lambda: [callbacks.ReduceLROnPlateau(patience=0, min_delta=0.5, factor=0.3)],
    "scheduler": lambda: [callbacks.LearningRateScheduler(schedule)],
    "several": lambda: [
        callbacks.LearningRateScheduler(schedule),
        callbacks.ReduceLROnPlateau(patience=1, min_delta=0.5),
        callbacks.EarlyStopping(patience=2, min_delta=0.3, restore_best_weights=True),
        callbacks.TerminateOnNaN(),
    ],
}


# Recorded, "several" shows what each of the others shows.
CASES = [pytest.param(name, False, id=f"{name}-eager") for name in MAKERS]
CASES += [
    pytest.param(
        name, True, id=f"{name}-recorded", marks=() if name == "several" else pytest.mark.slow
    )
    for name in MAKERS
]


@pytest.mark.parametrize(("name", "record"), CASES)
def test_it_trains_as_in_fit(name, record):
    theirs = by_keras(MAKERS[name])
    assert_same(by_loop(MAKERS[name], record=record), theirs)
    if name.startswith("early"):
        assert len(theirs[2]["loss"]) < EPOCHS


class Adds(callbacks.Callback):
    """Adds to the logs what `fit` has in its history then, and something that is no number."""

    def on_epoch_end(self, epoch, logs=None):
        logs["twice"] = 2 * logs["loss"]
        logs["table"] = [epoch]


def test_what_callbacks_add_to_the_logs_of_an_epoch_is_in_the_history_of_the_loop():
    def make():
        return [callbacks.LearningRateScheduler(schedule), Adds()]

    theirs = by_keras(make)[2]
    train, val = data()
    loop = FitLoop(build(), TensorLoader(*train, batch_size=16), TensorLoader(*val, batch_size=16))
    history = loop.attach(compiled(), KerasCallbacks(make())).fit(epochs=EPOCHS)
    assert len(set(theirs["learning_rate"])) > 1
    for name in ("learning_rate", "twice", "loss", "val_mae"):
        np.testing.assert_allclose(history[name], theirs[name], rtol=1e-6)
    assert set(history.rows[0]) == set(theirs) - {"table"} | {"epoch", "num_updates", "lr"}


@pytest.mark.parametrize("swap_on_epoch", [False, True])
def test_averaged_weights_are_swapped_in(swap_on_epoch):
    def make():
        return [callbacks.SwapEMAWeights(swap_on_epoch=swap_on_epoch)]

    options = {"use_ema": True, "ema_momentum": 0.8}
    assert_same(by_loop(make, **options), by_keras(make, **options))


def test_the_csv_file_is_the_same(tmp_path):
    rows = []
    for name, run in (("ours", by_loop), ("theirs", by_keras)):
        path = tmp_path / name
        run(lambda path=path: [callbacks.CSVLogger(path)])
        with path.open() as file:
            rows.append(list(csv.DictReader(file)))
    assert len(rows[0]) == len(rows[1]) == EPOCHS
    for ours, theirs in zip(*rows, strict=True):
        assert list(ours) == list(theirs)
        np.testing.assert_allclose([*map(float, ours.values())], [*map(float, theirs.values())])


@pytest.mark.parametrize("save_freq", ["epoch", 7])
def test_checkpoints_are_the_same(tmp_path, save_freq):
    files = []
    for name, run in (("ours", by_loop), ("theirs", by_keras)):
        folder = tmp_path / name
        path = folder / ("{epoch}-{loss:.5f}.weights.h5")
        options = {"save_weights_only": True, "save_freq": save_freq}
        run(lambda path=path, options=options: [callbacks.ModelCheckpoint(path, **options)])
        files.append(sorted(each.name for each in folder.iterdir()))
    assert files[0] == files[1]
    assert len(files[0]) > 2


def test_whole_models_are_saved_and_load(tmp_path):
    path = tmp_path / "best.keras"
    model, _, _ = by_loop(lambda: [callbacks.ModelCheckpoint(path, save_best_only=True)])
    x = data()[1][0]
    assert keras.saving.load_model(path).predict(x, verbose=0).shape == model(x).shape


class Recorder(callbacks.Callback):
    """Notes all that it is called with."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def note(self, name, *values):
        self.calls.append((name, *[dict(v) if isinstance(v, dict) else v for v in values]))


def noting(name):
    def hook(self, *args, **kwargs):
        self.note(name, *args, *kwargs.values())

    return hook


HOOKS = [
    f"on_{kind}{moment}"
    for moment in ("_begin", "_end")
    for kind in ("train", "test", "epoch", "train_batch", "test_batch")
]
for each in HOOKS:
    setattr(Recorder, each, noting(each))


def test_every_hook_is_called_in_the_order_and_with_the_values_of_fit():
    ours = by_loop(lambda: [Recorder()])[1][0].calls
    theirs = by_keras(lambda: [Recorder()])[1][0].calls
    assert [call[:-1] for call in ours] == [call[:-1] for call in theirs]
    for left, right in zip(ours, theirs, strict=True):
        assert list(left[-1]) == list(right[-1]), left[0]
        np.testing.assert_allclose([*left[-1].values()], [*right[-1].values()], rtol=1e-6)


def test_running_means_with_a_supervised_stack_are_those_of_fit():
    theirs = by_keras(lambda: [Recorder()])[1][0].calls
    keras_model = build()
    model, recorder, (train, val) = build(), Recorder(), data()
    loop = FitLoop(model, TensorLoader(*train, batch_size=16), TensorLoader(*val, batch_size=16))
    metric = keras.metrics.MeanAbsoluteError(name="mae")
    loop.attach(supervised(loss="mse", optimizer=keras_model.optimizer, metrics=[metric]))
    loop.attach(KerasCallbacks([recorder]))
    loop.fit(epochs=EPOCHS)
    for left, right in zip(recorder.calls, theirs, strict=True):
        assert left[:-1] == right[:-1]
        np.testing.assert_allclose([*left[-1].values()], [*right[-1].values()], rtol=1e-6)


class Keeps(callbacks.Callback):
    """Keeps the logs of all batches, without a look at them or with one."""

    def __init__(self, look):
        super().__init__()
        self.look, self.logs = look, []

    def on_train_batch_end(self, batch, logs=None):
        self.look(logs)
        self.logs.append(logs)


@pytest.mark.parametrize("record", [False, True])
def test_logs_that_are_kept_are_those_of_their_batch(record):
    looks = [lambda logs: None, lambda logs: logs.get("loss"), dict]
    for look in looks if not record else looks[:1]:
        kept = by_loop(lambda look=look: [Keeps(look)], record=record, epochs=2)[1][0].logs
        theirs = by_keras(lambda: [Recorder()], epochs=2)[1][0].calls
        theirs = [logs for name, *_, logs in theirs if name == "on_train_batch_end"]
        assert len(kept) == len(theirs) == 10
        for ours, expected in zip(kept, theirs, strict=True):
            np.testing.assert_allclose(
                [ours[name] for name in expected], [*expected.values()], 1e-6
            )


def test_logs_that_nobody_looks_at_are_not_read(monkeypatch):
    class Metered(callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            pass

    monkeypatch.setattr("fitkit.tune.keras_callbacks._running", lambda *_: 1 / 0)
    by_loop(lambda: [Metered()], epochs=1)
    with pytest.raises(ZeroDivisionError):
        by_loop(lambda: [Keeps(len)], epochs=1)


def test_a_hook_before_a_batch_ends_the_run_after_it():
    class Stops(callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            self.model.stop_training = batch == 2

    model, (train, _) = build(), data()
    loop = FitLoop(model, TensorLoader(*train, batch_size=16))
    loop.attach(compiled(), KerasCallbacks([Stops()]))
    loop.fit(epochs=3)
    assert loop.state.num_batches == 3


def test_nan_ends_the_run():
    model, (train, _) = build(), data()
    train[1][40] = np.nan
    loop = FitLoop(model, TensorLoader(*train, batch_size=16))
    ends = []
    last = callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: ends.append(epoch))
    loop.attach(compiled(), KerasCallbacks([callbacks.TerminateOnNaN(), last]))
    loop.fit(epochs=3)
    assert loop.state.num_batches == 3
    assert "stop_training" in loop.state.stop_reason
    assert ends == [0]


class Interrupt(callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt


def test_an_interrupted_run_goes_on_where_the_backup_says(tmp_path):
    def make(*more):
        return [callbacks.BackupAndRestore(tmp_path / "backup"), *more]

    with pytest.raises(KeyboardInterrupt):
        by_loop(lambda: make(Interrupt()))
    assert json.loads((tmp_path / "backup" / "training_metadata.json").read_text())["epoch"] == 3
    whole = by_keras(list)
    resumed = by_loop(make)
    for left, right in zip(values(resumed[0]), values(whole[0]), strict=True):
        np.testing.assert_array_equal(left, right)
    assert len(resumed[2]["loss"]) == 3
    assert not (tmp_path / "backup").exists()


def test_a_model_that_was_not_compiled_borrows_the_optimizer():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1)])
    optimizer = keras.optimizers.SGD(0.1)
    loop = FitLoop(model, TensorLoader(*data()[0], batch_size=16))
    loop.attach(supervised(loss="mse", optimizer=optimizer))
    loop.attach(KerasCallbacks([callbacks.LearningRateScheduler(lambda epoch: 0.01)]))
    loop.fit(epochs=1)
    assert float(optimizer.learning_rate) == pytest.approx(0.01)
    assert not hasattr(model, "optimizer")


def test_predict_and_evaluate_call_their_hooks():
    seen = []
    names = ("on_test_begin", "on_test_end", "on_predict_begin", "on_predict_end")
    hooks = {name: lambda logs, name=name: seen.append(name) for name in names}
    model, (_, val) = build(), data()
    loop = FitLoop(model, None, TensorLoader(*val))
    loop.attach(compiled(), KerasCallbacks([callbacks.LambdaCallback(**hooks)]))
    loop.evaluate()
    loop.predict(TensorLoader(val[0]))
    assert seen == list(names)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (callbacks.History(), TypeError),
        ([callbacks.EarlyStopping], TypeError),
        ([print], TypeError),
        ([PrintLog()], ConfigError),
    ],
)
def test_what_is_no_keras_callback_is_refused(given, error):
    with pytest.raises(error, match="KerasCallbacks|callbacks.0."):
        KerasCallbacks(given)


def test_a_torch_module_is_refused():
    loop = FitLoop(torch.nn.Linear(1, 1))
    with pytest.raises(TypeError, match="expected a keras.Model"):
        loop.attach(KerasCallbacks([]))


def test_a_keras_callback_by_itself_is_refused_with_the_way_to_do_it():
    loop = FitLoop(torch.nn.Linear(1, 1))
    with pytest.raises(TypeError, match=r"KerasCallbacks\(\[EarlyStopping"):
        loop.attach(callbacks.EarlyStopping())
