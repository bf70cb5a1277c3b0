import io
import os
import pty
import re
import sys
import threading

import pytest
from tqdm import tqdm

from fitkit import CallbackOrderError, Event, ProgressBar
from fitkit.watch.console import Console
from fitkit.watch.live_bar import LiveBar, bar_class
from fitkit.watch.run_summary import share_done
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
    file, clock = io.StringIO(), FakeClock()
    takes = Takes(clock, 2.0, val=1.0)
    history = make_loop(ProgressBar(file, clock=clock), val=data(8), first=[takes]).fit(3)
    lines = lines_of(file)[: len(history)]
    for number, (line, row) in enumerate(zip(lines, history.rows, strict=True), start=1):
        head, _, logs = line.partition(" s  ")
        assert head == f"epoch {number}/3  10.0"
        assert logs == f"loss {row['loss']:.4f}  val_loss {row['val_loss']:.4f}"


def test_slow_epochs_have_a_line_every_ten_seconds():
    file, clock = io.StringIO(), FakeClock()
    loop = make_loop(ProgressBar(file, clock=clock), num_samples=400, first=[Takes(clock, 0.9)])
    history = loop.fit(1)
    *running, last = lines_of(file)
    assert len(running) == 90 // 10 - 1  # 12 batches of 0.9 s are the first to last 10 s
    assert running[0].startswith("epoch 1/1  12/100 batches  1.1/s  loss ")
    assert last == f"epoch 1/1  90.0 s  loss {history['loss'][0]:.4f}"


def test_fast_epochs_share_a_line_and_the_last_one_has_its_own():
    file, clock = io.StringIO(), FakeClock()
    loop = make_loop(ProgressBar(file, clock=clock), first=[Takes(clock, 0.6)])
    loop.fit(20)
    lines = [line.split()[1] for line in lines_of(file) if line.startswith("epoch")]
    assert lines == [f"{n}/20" for n in (1, 5, 9, 13, 17, 20)]  # 3 s each


def test_a_validation_within_an_epoch_has_a_line_of_its_own_and_its_time():
    file, clock = io.StringIO(), FakeClock()
    loop = make_loop(ProgressBar(file, clock=clock), first=[Takes(clock, 1.0, val=6.0)])
    loop.val_loaders = {"easy": data(8), "hard": data(8)}
    validate_every(loop, 2)
    loop.fit(1)
    lines = lines_of(file)
    assert lines[0].startswith("val easy  12.0 s  val_easy_loss ")
    assert lines[1].startswith("val hard  12.0 s  val_hard_loss ")
    assert lines[-1].startswith("epoch 1/1  5.0 s  loss ")
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


class Screen(io.StringIO):
    """A terminal of a few lines: what a person sees on it, and all that was seen."""

    encoding = "utf-8"

    def __init__(self):
        super().__init__()
        self.lines, self.row, self.column, self.pictures = [""], 0, 0, []

    def isatty(self):
        return True

    def write(self, text):
        for part in re.findall(r"\x1b\[A|[\r\n]|[^\r\n\x1b]+", text):
            self.put(part)
        return len(text)

    def put(self, part):
        if part == "\x1b[A":
            self.row -= 1
        elif part == "\r":
            self.column = 0
        elif part == "\n":
            self.row, self.column = self.row + 1, 0
            self.lines += [""] * (self.row + 1 - len(self.lines))
        else:
            line = self.lines[self.row].ljust(self.column)
            self.lines[self.row] = line[: self.column] + part + line[self.column + len(part) :]
            self.column += len(part)

    def flush(self):
        self.pictures.append([line.rstrip() for line in self.lines if line.strip()])


@pytest.fixture
def screen(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    return Screen()


def test_what_a_terminal_shows(screen):
    clock = FakeClock()
    loop = make_loop(
        ProgressBar(screen, clock=clock), val=data(8), first=[Takes(clock, 0.3, val=0.3)]
    )
    history = loop.fit(4)
    # While it runs: a bar for the run and one for the pass, below the lines of epochs.
    during = next(p for p in screen.pictures if p and "epoch 3/4  60%" in p[-1])
    assert [line[:12] for line in during] == [
        "epoch 1/4  1",
        "epoch 2/4  1",
        "run  60%|███",
        "epoch 3/4  6",
    ]
    assert during[-2].endswith("to go")
    assert "3/5" in during[-1]
    assert any(p and p[-1].startswith("val  50%|") for p in screen.pictures)
    # When it is over: the lines, and the table.
    *epochs, head, loss, val_loss, rate, total = screen.pictures[-1]
    assert [line.split()[1] for line in epochs] == ["1/4", "2/4", "3/4", "4/4"]
    assert re.split("  +", head) == ["", "first: 1/4", "best: 4/4", "last: 4/4"]
    shown = [f"{history['val_loss'][at]:.4f}" for at in (0, 3, 3)]
    assert val_loss.split() == ["val_loss", *shown]
    assert (loss.split()[0], rate.split()[0]) == ("loss", "lr")
    assert total == "4 epochs, 80 samples in 8.4 s, 10 samples/s"


@pytest.mark.parametrize(
    ("limits", "share"),
    [
        ({"epochs": 4}, [0.05, 0.3, 1.0]),
        ({"max_steps": 40}, [1 / 40, 6 / 40, 0.5]),
        ({"epochs": 40, "max_steps": 20}, [1 / 20, 6 / 20, 1.0]),
    ],
)
def test_how_much_of_the_run_is_done(limits, share):
    loop, found = make_loop(), []
    loop.on(Event.BATCH_END)(lambda state: found.append(share_done(state)))
    loop.on(Event.BATCH_END, when=lambda s: s.num_updates == 20)(lambda s: s.request_stop("20"))
    loop.fit(**limits)
    assert [found[0], found[5], found[19]] == pytest.approx(share)
    assert found == sorted(found)


def test_a_single_pass_has_one_bar_and_no_table(screen):
    make_loop(ProgressBar(screen)).fit(1)
    assert not any(line.startswith("run ") for picture in screen.pictures for line in picture)
    assert len(screen.pictures[-1]) == 1


@pytest.mark.parametrize("left_out", [True, False])
def test_the_rate_right_after_a_validation_is_that_of_training(screen, left_out):
    clock = FakeClock()
    kind = bar_class(Console(screen))
    bar = LiveBar(kind, Console(screen), "epoch", 100)
    bar._bar._time, bar._bar.start_t, bar._bar.last_print_t = clock, clock(), clock()
    for done in (1, 2, 3):
        clock.now += 0.5
        bar.show(done)
    clock.now += 60  # a validation
    if left_out:
        bar.leave_out(60)
    clock.now += 0.5
    bar.show(4)
    rate = bar._bar.format_dict["rate"]
    assert (rate == pytest.approx(2.0)) == left_out


def test_a_name_of_any_kind_is_one_short_plain_line():
    file = io.StringIO()
    loop = make_loop()
    names = ["\x1b[31mred", "a\nb", "x" * 5000, "精度", "\ud800"]
    loop.on(Event.EPOCH_END)(lambda state: state.logs.update(dict.fromkeys(names, 1.0)))
    loop.attach(ProgressBar(file)).fit(2)  # after what it shows
    assert all(len(line) < 300 for line in lines_of(file))
    assert len(lines_of(file)) == 2 + 1 + 2 + len(names) + 1


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
    make_loop(ProgressBar(terminal), ProgressBar(other, summary=False)).fit(2)
    assert len(lines_of(other)) == 2
    assert terminal.getvalue().count(" s  loss") == 2


def test_a_bar_that_could_not_know_the_results_is_refused():
    loop = make_loop(first=[ProgressBar()])
    with pytest.raises(CallbackOrderError, match="Metrics, ProgressBar"):
        loop.fit(1)
