import io
import os
import pty
import sys
import threading

import pytest
from tqdm import tqdm

from fitkit import CallbackOrderError, Event, ProgressBar
from tests.unit.watch.helpers import (
    FakeClock,
    Takes,
    counted_syncs,
    data,
    make_loop,
    validate_every,
)


class Terminal(io.StringIO):
    """A stream that says it is a terminal, and can be told to fail."""

    encoding = "utf-8"
    fails = False

    def isatty(self):
        return True

    def write(self, text):
        if self.fails:
            raise BrokenPipeError
        return super().write(text)


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    return Terminal()


def lines_of(file):
    text = file.getvalue()
    assert all(char.isprintable() or char == "\n" for char in text)
    return text.splitlines()


def test_one_line_per_epoch_without_control_characters():
    file = io.StringIO()
    history = make_loop(ProgressBar(file), val=data(8)).fit(2)
    for number, (line, row) in enumerate(zip(lines_of(file), history.rows, strict=True), start=1):
        head, _, logs = line.partition(" s  ")
        assert head.startswith(f"epoch {number}/2  0.")
        assert logs == f"loss {row['loss']:.4f}  val_loss {row['val_loss']:.4f}"


def test_slow_epochs_have_a_line_every_ten_seconds():
    file, clock = io.StringIO(), FakeClock()
    loop = make_loop(ProgressBar(file, clock=clock), num_samples=400, first=[Takes(clock, 0.9)])
    history = loop.fit(1)
    *running, last = lines_of(file)
    assert len(running) == 90 // 10 - 1  # 12 batches of 0.9 s are the first to last 10 s
    assert running[0].startswith("epoch 1/1  12/100 batches  loss ")
    assert last == f"epoch 1/1  90.0 s  loss {history['loss'][0]:.4f}"


def test_fast_epochs_have_no_running_line():
    file, clock = io.StringIO(), FakeClock()
    loop = make_loop(ProgressBar(file, clock=clock), first=[Takes(clock, 1.9)])
    loop.fit(20)
    assert len(lines_of(file)) == 20


def test_a_validation_within_an_epoch_has_a_line_of_its_own_and_its_time():
    file, clock = io.StringIO(), FakeClock()
    loop = make_loop(ProgressBar(file, clock=clock), first=[Takes(clock, 1.0, val=3.0)])
    loop.val_loaders = {"easy": data(8), "hard": data(4)}
    validate_every(loop, 2)
    loop.fit(1)
    lines = lines_of(file)
    assert lines[0].startswith("val easy  6.0 s  val_easy_loss ")
    assert lines[1].startswith("val hard  3.0 s  val_hard_loss ")
    assert lines[4].startswith("epoch 1/1  5.0 s  loss ")
    assert len(lines) == 5


def test_evaluate_and_predict_have_a_line():
    file = io.StringIO()
    loop = make_loop(ProgressBar(file), val=data(8))
    result = loop.evaluate()
    loop.predict(data(12))
    lines = lines_of(file)
    assert lines[0].startswith("val  0.")
    assert lines[0].endswith(f"  loss {result['loss']:.4f}")
    assert lines[1] == "predict  0.0 s"


def test_the_line_of_a_stopped_epoch():
    file = io.StringIO()
    history = make_loop(ProgressBar(file)).fit(max_steps=3)
    line, reason = lines_of(file)
    assert reason == "stopped: max_steps: 3 updates done"
    assert line.startswith("epoch 1  0.")
    assert f"loss {history['loss'][0]:.4f}" in line


def test_a_terminal_gets_a_bar_that_vanishes(terminal):
    clock = FakeClock()
    loop = make_loop(ProgressBar(terminal, clock=clock), first=[Takes(clock, 0.3)])
    history = loop.fit(1)
    text = terminal.getvalue()
    assert "epoch 1/1  60%|" in text
    assert "3/5" in text
    final = text.rpartition("\r")[2]
    assert final == f"epoch 1/1  1.5 s  loss {history['loss'][0]:.4f}\n"


def test_a_loader_without_length(terminal):
    clock = FakeClock()
    loop = make_loop(ProgressBar(terminal, clock=clock), first=[Takes(clock, 0.3)])
    loop.train_loader = (batch for batch in data(20))
    loop.fit(1)
    assert "epoch 1/1: 3 batches" in terminal.getvalue()


@pytest.mark.parametrize("size", ["0 0", "1 1", "20 7", "200 50"])
def test_a_real_terminal_of_any_size(size, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("COLUMNS", raising=False)
    ours, theirs = pty.openpty()
    columns, rows = size.split()
    os.system(f"stty cols {columns} rows {rows} < {os.ttyname(theirs)}")
    clock = FakeClock()
    with os.fdopen(theirs, "w") as file:
        bar = ProgressBar(file, clock=clock)
        make_loop(bar, val=data(8), first=[Takes(clock, 0.3, val=0.3)]).fit(1)
        text = ""
        while not text.endswith("\n"):
            text += os.read(ours, 100_000).decode()
    os.close(ours)
    assert text.count("epoch 1/1  1.5 s  loss ") == 1


def test_a_dumb_terminal_gets_lines(terminal, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    make_loop(ProgressBar(terminal)).fit(1)
    assert len(lines_of(terminal)) == 1


def test_the_loss_is_read_five_times_a_second_at_most(monkeypatch, terminal):
    clock = FakeClock()
    loop = make_loop(
        ProgressBar(terminal, clock=clock), num_samples=400, first=[Takes(clock, 0.01)]
    )
    with counted_syncs(monkeypatch) as syncs:
        loop.fit(1)
    assert len(syncs) <= 100 * 0.01 / 0.2 + 1  # and the metrics of the pass


def test_an_error_takes_the_bars_away(terminal):
    loop = make_loop(ProgressBar(terminal), val=data(8))

    @loop.on(Event.BATCH_END, phases=["val"])
    def fail(state):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        loop.fit(1)
    assert terminal.getvalue().endswith("\r")
    make_loop(ProgressBar(terminal)).fit(1)
    assert " s  loss " in terminal.getvalue().splitlines()[-1]


@pytest.mark.parametrize("after", ["start", "middle"])
def test_a_stream_that_breaks_does_not_stop_training(terminal, after):
    clock = FakeClock()
    loop = make_loop(ProgressBar(terminal, clock=clock), first=[Takes(clock, 0.3)])
    terminal.fails = after == "start"

    @loop.on(Event.BATCH_END)
    def cut(state):
        terminal.fails = True

    assert len(loop.fit(2)) == 2
    # and the lock that tqdm then keeps is no hindrance to bars in other threads
    thread = threading.Thread(target=lambda: list(tqdm([1], file=io.StringIO())), daemon=True)
    thread.start()
    thread.join(5)
    assert not thread.is_alive()


def test_a_closed_standard_output(monkeypatch):
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stdout", closed)
    assert len(make_loop(ProgressBar()).fit(1)) == 1


def test_other_processes_are_silent(terminal):
    loop = make_loop(ProgressBar(terminal))
    loop.state.is_main = False
    loop.fit(1)
    assert terminal.getvalue() == ""


def test_no_thread_is_left(terminal, monkeypatch):
    monkeypatch.setattr(tqdm, "monitor", None)  # a thread tqdm may have from other tests
    before = threading.active_count()
    for _ in range(3):
        make_loop(ProgressBar(terminal)).fit(1)
    assert threading.active_count() == before


def test_two_bars_at_once(terminal):
    other = io.StringIO()
    make_loop(ProgressBar(terminal), ProgressBar(other)).fit(2)
    assert len(lines_of(other)) == 2
    assert terminal.getvalue().count(" s  loss") == 2


def test_a_bar_that_could_not_know_the_results_is_refused():
    loop = make_loop(first=[ProgressBar()])
    with pytest.raises(CallbackOrderError, match="Metrics, ProgressBar"):
        loop.fit(1)
