import math
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fitkit import (
    Accumulate,
    Callback,
    ConfigError,
    Event,
    Histograms,
    Phase,
    TensorBoard,
    Throughput,
)
from fitkit.watch import event_file
from fitkit.watch.rates import kept
from tests.unit.watch.helpers import (
    FakeClock,
    Losses,
    Takes,
    counted_syncs,
    data,
    make_loop,
    validate_every,
)


def read(folder):
    """Return {tag: [(x, value)]} of all event files in a folder."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {
        tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }


def as_stored(values):
    """Return what is left of floats in 32 bits."""
    return torch.tensor(values, dtype=torch.float32).tolist()


def test_names_steps_and_values_are_those_of_the_run(tmp_path):
    losses = Losses()
    loop = make_loop(losses, TensorBoard(), Throughput(warmup=0), val=data(8), run_dir=tmp_path)
    history = loop.fit(3)
    train, val = read(tmp_path / "train"), read(tmp_path / "val")
    assert train["step/loss"] == list(enumerate(as_stored(losses.values), start=1))
    assert train["epoch/loss"] == list(zip([5, 10, 15], as_stored(history["loss"]), strict=True))
    assert val == {
        "epoch/loss": list(zip([5, 10, 15], as_stored(history["val_loss"]), strict=True))
    }
    for name in ("speed/samples_per_s", "speed/step_ms_p95"):
        assert [value for _, value in train[name]] == as_stored(history[name])
    assert [value for _, value in train["epoch/lr"]] == as_stored([0.01] * 3)


@pytest.mark.parametrize(
    ("axis", "steps", "epochs"),
    [
        ("step", [1, 2, 3, 4, 5, 6], [3, 6]),
        ("samples", [4, 8, 10, 14, 18, 20], [10, 20]),
        ("seconds", [2000, 4000, 6000, 8000, 10000, 12000], [6000, 12000]),
        ("epoch", [1, 2, 3, 4, 5, 6], [0, 1]),
    ],
)
def test_the_horizontal_axis(tmp_path, axis, steps, epochs):
    clock = FakeClock()
    board = TensorBoard(x=axis, clock=clock)
    first = [Takes(clock, 2.0)]
    loop = make_loop(board, num_samples=10, val=data(4), run_dir=tmp_path, first=first)
    loop.fit(2)
    train, val = read(tmp_path / "train"), read(tmp_path / "val")
    updates = read(tmp_path / "updates") if axis == "epoch" else train
    assert [x for x, _ in updates["step/loss"]] == steps
    assert [x for x, _ in train["epoch/loss"]] == epochs
    assert [x for x, _ in val["epoch/loss"]] == epochs


def test_seconds_go_on_in_the_next_fit_and_after_a_resume(tmp_path):
    clock = FakeClock()
    board = TensorBoard(x="seconds", clock=clock)
    loop = make_loop(board, run_dir=tmp_path, first=[Takes(clock, 2.0)])
    loop.fit(1)
    clock.now += 100
    loop.fit(1)
    assert [x for x, _ in read(tmp_path / "train")["epoch/loss"]] == [10_000, 20_000]
    resumed = TensorBoard(x="seconds", clock=clock)
    resumed.load_state_dict(board.state_dict())
    assert resumed.state_dict() == {"seconds": 20.0}


def test_values_are_timed_when_they_were_measured(tmp_path):
    clock = FakeClock()
    make_loop(TensorBoard(clock=clock), run_dir=tmp_path, first=[Takes(clock, 2.0)]).fit(1)
    events = EventAccumulator(str(tmp_path / "train")).Reload().Scalars("step/loss")
    assert [event.wall_time for event in events] == [1002, 1004, 1006, 1008, 1010]


def test_a_second_fit_goes_on_without_gaps_or_doubles(tmp_path):
    loop = make_loop(TensorBoard(), run_dir=tmp_path)
    loop.fit(1)
    loop.fit(1)
    assert [x for x, _ in read(tmp_path / "train")["step/loss"]] == list(range(1, 11))


def test_a_resumed_run_hides_what_the_crashed_one_wrote_after_the_checkpoint(tmp_path):
    make_loop(TensorBoard(), run_dir=tmp_path).fit(max_steps=13)
    resumed = make_loop(TensorBoard(), run_dir=tmp_path)
    resumed.state.num_updates, resumed.state.epoch = 10, 2
    resumed.fit(1)
    assert [x for x, _ in read(tmp_path / "train")["step/loss"]] == list(range(1, 16))


def test_everything_logged_on_the_device_is_written_even_now_and_then(tmp_path):
    loop = make_loop(TensorBoard(), run_dir=tmp_path)

    @loop.on(Event.UPDATE_METRICS)
    def often(state):
        state.log("norm", torch.tensor(state.num_updates, dtype=torch.int64))

    @loop.on(Event.UPDATE_METRICS, every=2)
    def seldom(state):
        state.log("half", torch.tensor(0.5, dtype=torch.float64))

    loop.fit(1)
    train = read(tmp_path / "train")
    assert train["step/norm"] == [(1, 0), (2, 1), (3, 2), (4, 3), (5, 4)]
    assert train["step/half"] == [(2, 0.5), (4, 0.5)]


def test_values_that_a_replay_overwrites_are_copied(tmp_path):
    loop, memory = make_loop(TensorBoard(), run_dir=tmp_path), torch.zeros(())

    @loop.on(Event.UPDATE_METRICS)
    def replayed(state):
        state.step_values["same"] = memory.add_(1)

    loop.fit(1)
    assert [v for _, v in read(tmp_path / "train")["step/same"]] == [1, 2, 3, 4, 5]


def test_what_is_no_number_and_what_is_too_large(tmp_path):
    loop = make_loop(TensorBoard(), run_dir=tmp_path)

    @loop.on(Event.EPOCH_END)
    def odd(state):
        state.logs.update(a=math.nan, b=math.inf, c=1e300)

    loop.fit(1)
    train = read(tmp_path / "train")
    assert math.isnan(train["epoch/a"][0][1])
    assert train["epoch/b"][0][1] == train["epoch/c"][0][1] == math.inf


def test_only_completed_updates_have_a_point(tmp_path):
    class Halves(Callback):
        def on_batch_begin(self, state):
            state.closes_update = state.batch_index % 2 == 1

    loop = make_loop(TensorBoard(), num_samples=24, run_dir=tmp_path, first=[Halves()])
    loop.fit(1)
    assert [x for x, _ in read(tmp_path / "train")["step/loss"]] == [1, 2, 3]


class Late(Callback):
    """Log at BATCH_END, and move the learning rate before the next batch."""

    def __init__(self):
        self.rate, self.count = torch.tensor(0.5), torch.zeros(())

    def on_batch_begin(self, state):
        self.rate += 1

    def on_batch_end(self, state):
        state.log("late", self.count.fill_(state.num_updates))


@pytest.mark.parametrize("order", [1, -1])
def test_what_is_logged_at_batch_end_is_written_in_any_order(tmp_path, order):
    late, board = Late(), TensorBoard(flush_every=2)
    loop = make_loop(*(board, late)[::order], val=data(8), run_dir=tmp_path)
    validate_every(loop, 2)  # a pass between two training batches

    @loop.on(Event.PASS_BEGIN)
    def rates(state):
        board._buffer.rates = {"lr": kept(lambda: late.rate)}

    loop.fit(1)
    train = read(tmp_path / "train")
    assert train["step/late"] == [(x, float(x)) for x in range(1, 6)]
    assert len(train["step/loss"]) == 5
    before_val = [1.5, 2.5]  # each batch of the validation moves it, too
    assert [v for _, v in train["step/lr"]][:2] == before_val


class AfterBatches(Callback):
    """Log on the device at each event that comes after a batch."""

    phases = frozenset({Phase.TRAIN})

    def on_batch_end(self, state):
        state.request(Event.VALIDATE)
        state.request(Event.SAVE)

    def on_validate(self, state):
        if hasattr(state, "batch_index"):  # in mid-pass
            state.log("at_validate", torch.tensor(float(state.num_updates)))

    def on_save(self, state):
        if hasattr(state, "batch_index"):
            state.log("at_save", torch.tensor(float(state.num_updates)))

    def on_pass_end(self, state):
        state.log("at_pass_end", torch.tensor(7.0))
        state.logs["host_at_pass_end"] = 8.0


@pytest.mark.parametrize("order", [1, -1])
def test_what_is_logged_after_a_batch_is_of_the_pass_in_any_order(tmp_path, order):
    loop = make_loop(*(TensorBoard(), AfterBatches())[::order], run_dir=tmp_path)
    loop.fit(2)
    train = read(tmp_path / "train")
    assert {tag for tag in train if tag.startswith("step/")} == {"step/loss", "step/lr"}
    assert train["epoch/at_validate"] == train["epoch/at_save"] == [(5, 3.0), (10, 8.0)]
    assert train["epoch/at_pass_end"] == [(5, 7.0), (10, 7.0)]
    assert train["epoch/host_at_pass_end"] == [(5, 8.0), (10, 8.0)]


class LogsOnHost(Callback):
    """Log on the host at the last events of an epoch."""

    def on_epoch_end(self, state):
        state.logs["at_epoch_end"] = 1.0

    def on_save(self, state):
        state.logs["at_save"] = 2.0


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("limits", [{"epochs": 3}, {"max_steps": 8}])
def test_an_epoch_has_the_points_of_the_history_in_any_order(tmp_path, order, limits):
    loop = make_loop(*(TensorBoard(), LogsOnHost())[::order], run_dir=tmp_path)
    history = loop.fit(**limits)
    train = read(tmp_path / "train")
    for name in ("loss", "at_epoch_end", "at_save"):
        points = train.get(f"epoch/{name}", [])
        rows = [(row["num_updates"], row[name]) for row in history.rows if name in row]
        assert points == [(x, as_stored(value)) for x, value in rows]
    cut_short = "max_steps" in limits  # such a row is made at FIT_END
    assert ("at_save" in history) == cut_short


def test_the_batches_of_an_update_are_a_point_at_their_mean(tmp_path):
    losses = Losses()
    loop = make_loop(losses, TensorBoard(), Accumulate(3), num_samples=26, run_dir=tmp_path)
    kept = []
    loop.on(Event.BATCH_END)(lambda state: kept.append(state.batch_size))

    @loop.on(Event.UPDATE_METRICS, when=lambda state: state.closes_update)
    def once(state):
        state.log("once", torch.tensor(7.0))

    loop.fit(1)
    assert kept == [4, 4, 4, 4, 4, 4, 2]
    values = losses.values
    wanted = [sum(values[:3]) / 3, sum(values[3:6]) / 3, values[6]]
    train = read(tmp_path / "train")
    assert [x for x, _ in train["step/loss"]] == [1, 2, 3]
    assert [v for _, v in train["step/loss"]] == pytest.approx(wanted)
    assert train["step/once"] == [(1, 7.0), (2, 7.0), (3, 7.0)]
    assert wanted[0] != pytest.approx(values[2])


def test_batches_of_different_size_count_by_their_samples(tmp_path):
    losses = Losses()
    loop = make_loop(losses, TensorBoard(), Accumulate(7), num_samples=26, run_dir=tmp_path)
    loop.fit(1)
    weighted = sum(v * n for v, n in zip(losses.values, [4] * 6 + [2], strict=True)) / 26
    [(_, found)] = read(tmp_path / "train")["step/loss"]
    assert found == pytest.approx(weighted)


def test_an_update_that_the_end_of_the_loader_completes_has_a_point(tmp_path):
    class Stream:
        def __iter__(self):
            return iter(data(28))

    losses = Losses()
    loop = make_loop(losses, TensorBoard(), Accumulate(3), run_dir=tmp_path)
    loop.train_loader = Stream()
    loop.fit(1)
    found = read(tmp_path / "train")["step/loss"]
    assert [x for x, _ in found] == [1, 2, 3]
    assert found[2][1] == pytest.approx(losses.values[6])


def test_a_validation_within_an_epoch_is_not_drawn_over_epochs(tmp_path):
    loop = make_loop(TensorBoard(x="epoch"), val=data(8), run_dir=tmp_path)
    validate_every(loop, 2)
    loop.fit(2)
    assert [x for x, _ in read(tmp_path / "updates_val")["epoch/loss"]] == [2, 4, 6, 8, 10]
    assert not (tmp_path / "val").exists()
    assert [x for x, _ in read(tmp_path / "train")["epoch/loss"]] == [0, 1]


def test_a_validation_in_mid_epoch_is_a_point_of_its_own(tmp_path):
    loop = make_loop(TensorBoard(), val=data(8), run_dir=tmp_path)
    validate_every(loop, 2)
    history = loop.fit(2)
    val = read(tmp_path / "val")["epoch/loss"]
    assert [x for x, _ in val] == [2, 4, 6, 8, 10]
    assert val[1][1] == as_stored(history["val_loss"])[0]
    assert [x for x, _ in read(tmp_path / "train")["epoch/loss"]] == [5, 10]


def test_several_validation_loaders_with_confusing_names(tmp_path):
    names = ["a", "a_b", "../up", "c/d", "c_d", ""]
    loaders = {name: data(4 * (i + 1)) for i, name in enumerate(names)}
    loop = make_loop(TensorBoard(tmp_path / "run"), val=loaders)
    history = loop.fit(1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
    runs = {path.name: read(path) for path in (tmp_path / "run").iterdir() if path.is_dir()}
    assert {name: len(curves) for name, curves in runs.items() if name != "train"} == {
        **dict.fromkeys(["val_a", "val_a_b", "val_.._up", "val_c_d", "val_c_d_2", "val"], 1)
    }
    assert runs["val_a_b"]["epoch/loss"] == [(5, as_stored(history["val_a_b_loss"])[0])]
    assert runs["val_a"]["epoch/loss"] == [(5, as_stored(history["val_a_loss"])[0])]


def test_names_are_made_safe_and_stay_different(tmp_path):
    loop = make_loop(TensorBoard(), run_dir=tmp_path)

    @loop.on(Event.EPOCH_END)
    def name(state):
        state.logs.update({"top 1": 1.0, "top_1": 2.0, "/../x\n": 3.0, "Größe": 4.0, "": 5.0})

    loop.fit(1)
    train = read(tmp_path / "train")
    assert train["epoch/top_1"] == [(5, 1.0)]
    assert train["epoch/top_1_2"] == [(5, 2.0)]
    assert train["_/x_"] == [(5, 3.0)]
    assert train["epoch/Größe"] == [(5, 4.0)]
    assert train["epoch"] == [(5, 5.0)]


def test_no_syncs_between_flushes(tmp_path, monkeypatch):
    loop = make_loop(TensorBoard(flush_every=8), num_samples=80, run_dir=tmp_path)
    with counted_syncs(monkeypatch) as syncs:
        loop.fit(1)
    # after 8, 16 and at the end of 20 updates; the metrics of the pass
    assert sorted(syncs) == ["cpu"] * 3 + ["numpy"] * 3 + ["tolist"]


@pytest.mark.parametrize(
    ("step_s", "flush_every", "flushes"),
    [(1.0, None, 3), (0.005, None, 2), (0.0001, None, 1), (0.0001, 100, 3)],
)
def test_fast_steps_are_written_once_a_second(tmp_path, monkeypatch, step_s, flush_every, flushes):
    clock = FakeClock()
    board = TensorBoard(clock=clock, flush_every=flush_every)
    first = [Takes(clock, step_s)]
    loop = make_loop(board, num_samples=1400, run_dir=tmp_path, first=first)
    with counted_syncs(monkeypatch) as syncs:
        loop.fit(1)
    assert syncs.count("cpu") == flushes + 1  # the end of the pass
    assert syncs.count("tolist") == 1  # its metrics
    assert [x for x, _ in read(tmp_path / "train")["step/loss"]] == list(range(1, 351))


def test_flushed_values_are_on_disk_while_training_runs(tmp_path):
    loop, seen = make_loop(TensorBoard(flush_every=2), run_dir=tmp_path), []

    @loop.on(Event.BATCH_END)
    def look(state):
        seen.append(len(read(tmp_path / "train").get("step/loss", [])))

    loop.fit(1)
    assert seen == [0, 0, 2, 2, 4]


def test_the_steps_of_a_pass_are_on_disk_when_it_ends(tmp_path):
    loop, seen = make_loop(TensorBoard(), run_dir=tmp_path), []
    loop.on(Event.VALIDATE)(lambda state: seen.append(len(read(tmp_path / "train")["step/loss"])))
    loop.fit(2)
    assert seen == [5, 10]


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("phase", ["train", "val"])
def test_an_error_loses_nothing(tmp_path, error, phase):
    losses = Losses()
    loop = make_loop(losses, TensorBoard(), val=data(8), run_dir=tmp_path)

    @loop.on(Event.BATCH_END, phases=[phase], when=lambda state: state.num_updates >= 8)
    def fail(state):
        raise error

    with pytest.raises(error):
        loop.fit(3)
    train = read(tmp_path / "train")
    assert train["step/loss"] == list(enumerate(as_stored(losses.values), start=1))
    assert len(losses.values) == (8 if phase == "train" else 10)


CRASH = """
import os, sys, torch
sys.path.insert(0, os.getcwd())
from tests.unit.watch.helpers import make_loop
from fitkit import TensorBoard, Event
loop = make_loop(TensorBoard(flush_every=10), num_samples=400, run_dir=sys.argv[1])
@loop.on(Event.BATCH_END)
def tell(state):
    print(state.num_updates, flush=True)
loop.fit(1000)
"""


def test_a_killed_process_loses_at_most_one_flush(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", CRASH, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    for line in process.stdout:
        if int(line) == 157:
            process.send_signal(signal.SIGKILL)
            break
    last = [int(line) for line in process.stdout.read().split()][-1:] or [157]
    process.wait()
    process.stdout.close()
    steps = [x for x, _ in read(tmp_path / "train")["step/loss"]]
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) >= last[0] - 10


def test_a_stop_in_mid_epoch_writes_its_logs(tmp_path):
    loop = make_loop(TensorBoard(), run_dir=tmp_path)
    history = loop.fit(max_steps=3)
    assert read(tmp_path / "train")["epoch/loss"] == [(3, as_stored(history["loss"])[0])]


@pytest.mark.parametrize(("axis", "xs"), [("step", [5, 10, 15]), ("epoch", [0, 1, 2])])
def test_what_is_logged_at_epoch_end_after_the_board_is_written_for_every_epoch(tmp_path, axis, xs):
    class Late(Callback):
        def on_epoch_end(self, state):
            state.logs["late"] = float(state.epoch)

    loop = make_loop(TensorBoard(x=axis), Late(), val=data(8), run_dir=tmp_path)
    loop.on(Event.BATCH_END)(lambda state: state.request(Event.SAVE))  # in mid-pass: no points
    loop.fit(3)
    train, val = read(tmp_path / "train"), read(tmp_path / "val")
    assert train["epoch/late"] == list(zip(xs, [0.0, 1.0, 2.0], strict=True))
    assert [x for x, _ in train["epoch/loss"]] == [x for x, _ in val["epoch/loss"]] == xs


def test_evaluate_and_predict_write_nothing(tmp_path):
    loop = make_loop(TensorBoard(), val=data(8), run_dir=tmp_path / "run")
    loop.evaluate()
    loop.predict(data(8))
    assert not (tmp_path / "run").exists()
    loop.on(Event.EPOCH_END)(lambda state: loop.evaluate(data(4)))
    loop.fit(1)
    assert len(read(tmp_path / "run" / "val")["epoch/loss"]) == 1


def test_two_boards_at_once_and_in_one_folder(tmp_path):
    loop = make_loop(TensorBoard(tmp_path / "a"), TensorBoard(tmp_path / "b", x="samples"))
    other = make_loop(TensorBoard(tmp_path / "a"))
    loop.on(Event.EPOCH_END)(lambda state: other.fit(1))
    loop.fit(1)
    assert [x for x, _ in read(tmp_path / "b" / "train")["step/loss"]] == [4, 8, 12, 16, 20]
    assert len(list((tmp_path / "a" / "train").iterdir())) == 2


def test_two_axes_in_one_folder_are_refused(tmp_path):
    loop = make_loop(TensorBoard(tmp_path), TensorBoard(tmp_path / "x" / "..", x="epoch"))
    with pytest.raises(ConfigError, match='over "step" and "epoch"'):
        loop.fit(1)
    loop = make_loop(TensorBoard(tmp_path / "a", x="epoch"), TensorBoard(tmp_path / "b"))
    loop.fit(1)


@pytest.mark.parametrize("first", ["board", "histograms"])
def test_one_folder_under_two_names_has_one_axis_and_one_file(tmp_path, monkeypatch, first):
    monkeypatch.chdir(tmp_path)
    boards = [TensorBoard("runs", x="epoch"), Histograms(log_dir=tmp_path / "runs")]
    make_loop(*boards[:: 1 if first == "board" else -1]).fit(2)
    assert [x for x, _ in read(tmp_path / "runs" / "train")["epoch/loss"]] == [0, 1]
    for folder in ("train", "updates"):
        assert len(list((tmp_path / "runs" / folder).iterdir())) == 1


def test_only_the_main_process_writes(tmp_path):
    loop = make_loop(TensorBoard(), run_dir=tmp_path / "run")
    loop.state.is_main = False
    loop.fit(1)
    assert not (tmp_path / "run").exists()


def a_file_in_the_way(tmp_path, monkeypatch):
    (tmp_path / "run").write_text("")


def a_full_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(event_file.Path, "open", lambda *_: open("/dev/full", "wb"))  # noqa: SIM115
    monkeypatch.setattr(event_file.Path, "exists", lambda path: True)


def a_removed_folder(tmp_path, monkeypatch):
    original = event_file.EventFile.add

    def remove_then_add(self, *args):
        self.path.unlink(missing_ok=True)
        original(self, *args)

    monkeypatch.setattr(event_file.EventFile, "add", remove_then_add)


def a_read_only_folder(tmp_path, monkeypatch):
    def refuse(*_args, **_options):
        raise PermissionError(13, "Permission denied")  # root may write anywhere: not so here

    monkeypatch.setattr(event_file.Path, "mkdir", refuse)


BROKEN = [a_file_in_the_way, a_full_disk, a_removed_folder, a_read_only_folder]


@pytest.mark.parametrize("break_it", BROKEN)
def test_a_failing_disk_is_one_warning_and_training_goes_on(tmp_path, monkeypatch, break_it):
    loop = make_loop(TensorBoard(flush_every=2), val=data(8), run_dir=tmp_path / "run")
    break_it(tmp_path, monkeypatch)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        history = loop.fit(3)
    assert len(history) == 3
    assert [str(w.message).splitlines()[1] for w in caught] == [
        "Training goes on, without curves from here on."
    ]


@pytest.mark.parametrize("axis", ["steps", "", None, 3])
def test_an_unknown_axis_is_refused(axis):
    with pytest.raises(ConfigError, match='Use one of: "step", "epoch", "samples", "seconds"'):
        TensorBoard(x=axis)


@pytest.mark.parametrize("flush_every", [0, -1, 1.5, True, "often"])
def test_a_flush_every_out_of_range_is_refused(flush_every):
    with pytest.raises(ConfigError, match="flush_every"):
        TensorBoard(flush_every=flush_every)


def test_nothing_heavy_is_imported_before_it_is_attached():
    code = (
        "import sys, fitkit; board = fitkit.TensorBoard();"
        "heavy = ('tensorboard', 'tensorflow', 'keras');"
        "assert not [name for name in sys.modules if name.startswith(heavy)]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])


def test_no_thread_and_no_open_file_is_left(tmp_path):
    import threading

    threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        make_loop(TensorBoard(), val=data(8), run_dir=tmp_path).fit(1)
    assert threading.active_count() == threads
    assert len(os.listdir("/proc/self/fd")) == files


def test_a_save_in_mid_pass_leaves_no_step_behind_it_unwritten(tmp_path):
    loop = make_loop(TensorBoard(), run_dir=tmp_path)  # it writes every 100 updates
    found = []
    loop.on(Event.BATCH_END, when=lambda s: s.num_updates == 3)(lambda s: s.request(Event.SAVE))
    loop.on(Event.SAVE)(lambda s: found.append(len(read(tmp_path / "train")["step/loss"])))
    loop.fit(1)
    assert found == [3, 5]


def test_a_running_total_of_the_loss_changes_no_point(tmp_path):
    class Total(Callback):
        def on_batch_end(self, state):
            if state.batch_index % 3 == 0:
                self.total = state.loss.detach()
            else:
                self.total += state.loss.detach()

    losses = Losses()
    make_loop(losses, Total(), TensorBoard(), run_dir=tmp_path).fit(2)
    assert [y for _, y in read(tmp_path / "train")["step/loss"]] == as_stored(losses.values)
