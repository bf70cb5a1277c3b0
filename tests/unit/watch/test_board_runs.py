"""Whole runs in TensorBoard: resumed, gone back, long, with hostile names; and what they cost."""

import gc
import random
import threading
import warnings

import pytest
import torch

from fitkit import (
    Callback,
    Checkpoint,
    ConfigError,
    Event,
    FitLoop,
    LRSchedule,
    Phase,
    Record,
    TensorBoard,
    TensorLoader,
    supervised,
)
from fitkit.testing import assert_no_sync, tiny_loop
from fitkit.watch import event_file
from fitkit.watch.event_file import EventFile
from fitkit.watch.run_files import SafeNames
from tests.unit.watch.event_files import event_files, images, scalars, tensors
from tests.unit.watch.helpers import FakeClock, Takes, data, make_loop


def classifier(run_dir, *callbacks, x="step", clock=None):
    """A loop over 40 images of 4 x 4 pixels of 3 classes, 5 batches, with all there is."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    generator = torch.Generator().manual_seed(1)
    inputs, labels = torch.rand(40, 4, 4, generator=generator), torch.arange(40) % 3
    loader = TensorLoader(inputs, labels, batch_size=8, shuffle=True, seed=2)
    loop = FitLoop(model, loader, TensorLoader(inputs, labels, batch_size=8), run_dir=run_dir)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, fused=True)
    loop.attach(supervised(loss=torch.nn.CrossEntropyLoss(), optimizer=optimizer))
    board = TensorBoard.everything(x=x)
    for callback in board:
        if isinstance(callback, TensorBoard) and clock is not None:
            callback.axis.clock = clock
        if type(callback).__name__ == "Histograms":
            callback._every = 3
    if clock is not None:
        loop.attach(Takes(clock, 0.3, val=0.01))
    return loop.attach(board, *callbacks)


def everything_in(folder):
    """All curves, histograms and pictures of a run, speeds left out."""
    found = {}
    for run in ("train", "val", "updates"):
        if (folder / run).exists():
            for tag, points in scalars(folder / run).items():
                if not tag.startswith(("speed/", "memory/", "cpu/", "device/", "process/")):
                    found[run, tag] = points
            for tag, points in tensors(folder / run).items():
                found[run, tag] = [(x, array.tolist()) for x, array in points]
            for tag, points in images(folder / run).items():
                found[run, tag] = points
    return found


class Crash(Callback):
    phases = frozenset({Phase.TRAIN})

    def __init__(self, at):
        self.at = at

    def on_batch_end(self, state):
        if state.num_updates == self.at:
            raise ZeroDivisionError


AXES = ["seconds", *(pytest.param(x, marks=pytest.mark.slow) for x in ("step", "epoch", "samples"))]


@pytest.mark.parametrize("x", AXES)
def test_a_run_killed_and_resumed_shows_what_an_unbroken_one_shows(tmp_path, x):
    classifier(tmp_path / "whole", x=x, clock=FakeClock()).fit(4)
    wanted = everything_in(tmp_path / "whole")
    assert {tag.split("/")[0] for _, tag in wanted} >= {
        *("step", "epoch", "weights", "gradients", "update_ratio", "pr", "answers")
    }
    clock = FakeClock()
    with pytest.raises(ZeroDivisionError):
        classifier(tmp_path / "parts", Checkpoint(every=7), Crash(18), x=x, clock=clock).fit(4)
    run = "updates" if x == "epoch" else "train"
    assert len(scalars(tmp_path / "parts" / run)["step/loss"]) == 18  # more than was saved
    clock.now += 100
    resumed = classifier(tmp_path / "parts", Checkpoint(every=7), Crash(None), x=x, clock=clock)
    resumed.fit(4, resume="auto")
    found = everything_in(tmp_path / "parts")
    assert found.keys() == wanted.keys()
    for key, points in wanted.items():
        assert found[key] == points, key


def test_without_hiding_the_resumed_run_would_double_steps(tmp_path, monkeypatch):
    monkeypatch.setattr(EventFile, "hide_from", lambda self, x: None)
    with pytest.raises(ZeroDivisionError):
        classifier(tmp_path, Checkpoint(every=7), Crash(18)).fit(4)
    classifier(tmp_path, Checkpoint(every=7), Crash(None)).fit(4, resume="auto")
    steps = [x for x, _ in scalars(tmp_path / "train")["step/loss"]]
    assert len(steps) > len(set(steps))


def test_the_learning_rate_of_every_update(tmp_path):
    schedule = LRSchedule(lambda step: 0.1 / (step + 1))
    make_loop(TensorBoard(), schedule, run_dir=tmp_path).fit(2)
    found = scalars(tmp_path / "train")["step/lr"]
    assert [x for x, _ in found] == list(range(1, 11))
    assert [v for _, v in found] == pytest.approx([0.1 / (step + 1) for step in range(10)])


@pytest.mark.parametrize("rate", [0.01, "schedule"])
def test_the_learning_rate_of_a_keras_optimizer(tmp_path, rate):
    import keras

    if rate == "schedule":
        rate = keras.optimizers.schedules.ExponentialDecay(0.01, 1, 0.5)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    loop = FitLoop(model, data(20), run_dir=tmp_path)
    loop.attach(supervised(loss="mse", optimizer=keras.optimizers.SGD(rate)), TensorBoard())
    loop.fit(1)
    found = scalars(tmp_path / "train")
    if rate == 0.01:
        assert [v for _, v in found["step/lr"]] == pytest.approx([0.01] * 5)
    else:  # asking a schedule costs as much as a step: once per pass
        assert "step/lr" not in found
        assert [v for _, v in found["epoch/lr"]] == pytest.approx([0.01 / 32])


def test_training_and_validation_of_a_metric_share_a_chart(tmp_path):
    from tensorboard.plugins.custom_scalar.layout_pb2 import Layout

    classifier(tmp_path).fit(1)
    [(_, content)] = tensors(tmp_path)["custom_scalars__config__"]
    layout = Layout.FromString(content.item())
    charts = {
        chart.title: list(chart.multiline.tag) for group in layout.category for chart in group.chart
    }
    assert charts["loss"] == ["^epoch/loss$"]
    assert charts["update ratio"] == ["^update_ratio/"]
    assert "epoch/loss" in scalars(tmp_path / "train")
    assert "epoch/loss" in scalars(tmp_path / "val")


def hostile_names():
    """Names that have broken file systems, terminals and web pages."""
    source = random.Random(0)
    fixed = [
        *("a/b", "../up", "/abs", "a//b", "a b", " ", "", ".", "..", "con", "x" * 5000),
        *(
            "Größe",
            "日本",
            "\x1b[31mred\x1b[0m",
            "a\nb",
            "a\0b",
            "a\rb",
            "<script>alert(1)</script>",
        ),
        *(
            "é" * 300,
            "😀",
            "a\\b",
            "C:\\x",
            "-rf",
            "*?",
            "%00",
            "{}",
            "'\"`$(x)",
            "\u202ea",
            "\ud800",
        ),
    ]
    letters = ["/", ".", "\n", "\x1b", "a", "ö", " ", "\\", "\0", "😀"]
    return fixed + ["".join(source.choices(letters, k=12)) for _ in range(50 - len(fixed))]


def test_hostile_names_are_safe_and_stay_different(tmp_path):
    names = hostile_names()
    assert len(set(names)) == 50
    loaders = {name: data(4) for name in names if name}
    loop = make_loop(TensorBoard(), val=loaders, run_dir=tmp_path / "run")

    @loop.on(Event.EPOCH_END)
    def log(state):
        state.logs.update({f"n{name}": float(index) for index, name in enumerate(names)})

    loop.fit(1)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    folders = [path for path in (tmp_path / "run").rglob("*") if path.is_dir()]
    assert all(path.parent == tmp_path / "run" for path in folders)
    assert len(folders) == 1 + len(loaders)
    train = scalars(tmp_path / "run" / "train")
    values = [points[0][1] for tag, points in train.items() if tag != "epoch/lr"]
    assert set(map(float, range(50))) <= set(values)
    for tag in [*train, *[path.name for path in folders]]:
        assert len(tag) <= 210
        assert tag.isprintable()


def test_unsafe_names_would_break_out():
    class Trusting(SafeNames):
        def __getitem__(self, name):
            return name

    assert ".." in Trusting("", longest=9)["../up"]
    assert SafeNames(".-", longest=60)["../up"] == "_up"


@pytest.mark.parametrize("value", ["text", [1.0], None, torch.ones(2)])
def test_what_is_no_number_is_refused_by_name(tmp_path, value):
    loop = make_loop(TensorBoard(), run_dir=tmp_path)

    @loop.on(Event.PASS_END)
    def log(state):
        state.logs["odd"] = value

    with pytest.raises(TypeError, match="odd.*expected a number"):
        loop.fit(1)


def test_nothing_is_read_between_flushes(tmp_path):
    loop = tiny_loop(*TensorBoard.everything(), run_dir=tmp_path)
    for callback in loop.callbacks:
        if type(callback).__module__.startswith("fitkit.watch."):
            assert_no_sync(loop, of=callback, epochs=1)


def test_a_board_that_flushes_every_update_is_seen_to_read(tmp_path):
    board = TensorBoard(flush_every=1)
    with pytest.raises(AssertionError, match="TensorBoard.on_batch_end"):
        assert_no_sync(tiny_loop(board, run_dir=tmp_path), of=board)


def grown(loop, updates):
    """Objects and bytes that training longer leaves behind."""
    import tracemalloc

    loop.fit(max_steps=200)
    gc.collect()
    tracemalloc.start()
    objects = len(gc.get_objects())
    loop.fit(max_steps=updates)
    gc.collect()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return len(gc.get_objects()) - objects, size


@pytest.mark.parametrize("updates", [600, pytest.param(100_000, marks=pytest.mark.slow)])
def test_a_long_run_keeps_memory_flat(tmp_path, updates):
    loop = make_loop(
        TensorBoard(), val=data(8), num_samples=4 * 100, run_dir=tmp_path, first=[Names()]
    )
    objects, size = grown(loop, updates)
    assert objects < 300
    epochs = updates / 100
    assert size < 200_000 + 1000 * epochs  # an epoch has a row in the history, and a name here
    steps = scalars(tmp_path / "train")["step/loss"]
    assert [x for x, _ in steps] == list(range(1, updates + 201))


class Names(Callback):
    """Log under a name that is new all the time, now and then."""

    def on_epoch_end(self, state):
        state.logs[f"n{state.num_updates}"] = 1.0


def test_no_thread_can_die(tmp_path):
    threads = []
    loop = classifier(tmp_path)
    loop.on(Event.BATCH_END)(lambda state: threads.append(threading.active_count()))
    before = threading.active_count()
    loop.fit(1)
    assert set(threads) == {before}


def test_a_full_disk_in_mid_run_is_one_warning_for_all(tmp_path, monkeypatch):
    loop = classifier(tmp_path)

    @loop.on(Event.BATCH_END, when=lambda state: state.num_updates == 7)
    def fill(state):
        def full(self):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(EventFile, "flush", full)

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        history = loop.fit(3)
    assert len(history) == 3
    assert len([w for w in told if "TensorBoard cannot write" in str(w.message)]) == 1


def test_recorded_with_everything_it_is_the_eager_run(tmp_path):
    eager = classifier(tmp_path / "eager")
    eager.fit(3)
    recorded = classifier(tmp_path / "recorded", Record("interpret"))
    recorded.fit(3)
    assert all(map(torch.equal, eager.model.parameters(), recorded.model.parameters()))
    assert everything_in(tmp_path / "eager") == everything_in(tmp_path / "recorded")


def test_a_folder_that_is_no_path_is_refused():
    with pytest.raises(ConfigError, match="expected a path"):
        TensorBoard(3)


def test_further_fits_write_into_the_same_files(tmp_path):
    loop = classifier(tmp_path)
    for _ in range(3):
        loop.fit(1)
    folders = [tmp_path, tmp_path / "train", tmp_path / "val"]
    assert [len(event_files(folder)) for folder in folders] == [1, 1, 1]
    found = scalars(tmp_path / "train")
    assert [x for x, _ in found["step/loss"]] == list(range(1, 16))
    assert [x for x, _ in found["epoch/loss"]] == [5, 10, 15]
    assert [x for x, _ in images(tmp_path / "val")["answers/confusion"]] == [5, 10, 15]


def another_process(path):
    path.rename(path.with_name(path.name + "1"))


def another_file(path):
    path.with_name("events.out.tfevents.9").touch()


def a_disk_that_failed(path):
    event_file._CLOSED.clear()


@pytest.mark.parametrize("change", [another_process, another_file, a_disk_that_failed])
def test_files_of_others_are_not_continued(tmp_path, change):
    loop = make_loop(TensorBoard(), run_dir=tmp_path)
    loop.fit(1)
    [name] = event_files(tmp_path / "train")
    change(tmp_path / "train" / name)
    before = {p: p.read_bytes() for p in (tmp_path / "train").iterdir()}
    loop.fit(1)
    assert all(path.read_bytes() == content for path, content in before.items())
    assert len(event_files(tmp_path / "train")) == len(before) + 1
