"""SIGTERM and Ctrl-C while `fit` runs; all else about them is in tests/faults/rows_signals.py."""

import inspect
import os
import signal
import subprocess
import sys
import threading

import pytest

from fitkit import Accumulate, Callback, Event
from fitkit.loop.signals import StopSignals
from tests.unit.loop.helpers import NUM_BATCHES, loader, make_loop, recorder

BOTH = (signal.SIGTERM, signal.SIGINT)
RAISED = {signal.SIGTERM: SystemExit, signal.SIGINT: KeyboardInterrupt}


class Sends(Callback):
    """Sends a signal at an event, once."""

    def __init__(self, number, event, batch=1):
        self.number, self.event, self.batch = number, event, batch

    def send(self, state, event):
        if event is self.event and state.num_batches == self.batch:
            self.event = None
            signal.raise_signal(self.number)

    def on_loss_ready(self, state):
        self.send(state, Event.LOSS_READY)

    def on_batch_end(self, state):
        self.send(state, Event.BATCH_END)

    def on_validate(self, state):
        self.send(state, Event.VALIDATE)


@pytest.fixture(autouse=True)
def python_s_own_handlers():
    """Begin as a program does: a test runner may have told this process to ignore Ctrl-C."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


def handlers():
    return [signal.getsignal(number) for number in (*BOTH, signal.SIGCHLD)]


@pytest.mark.parametrize("number", BOTH)
def test_the_step_is_finished_saved_and_closed(number):
    events = (Event.UPDATE_METRICS, Event.BATCH_END, Event.PASS_END, Event.SAVE, Event.CLOSE)
    heard = recorder(*events)
    loop = make_loop(Sends(number, Event.LOSS_READY), heard)
    before = handlers()
    with pytest.raises(RAISED[number]) as caught:
        loop.fit(epochs=2)
    assert getattr(caught.value, "code", 143) == 143
    steps = ["UPDATE_METRICS", "BATCH_END"] * 2
    assert heard.heard == [*steps, "PASS_END", "SAVE", "CLOSE"]
    assert loop.state.stop_reason == signal.Signals(number).name
    assert loop.state.stop_signal is None
    assert handlers() == before
    loop.fit(epochs=1)  # a notebook lives on
    assert loop.state.num_batches == 2 + NUM_BATCHES


def test_an_accumulation_window_is_closed_first():
    loop = make_loop(Accumulate(2), Sends(signal.SIGTERM, Event.LOSS_READY, batch=0))
    with pytest.raises(SystemExit):
        loop.fit(epochs=1)
    assert (loop.state.num_batches, loop.state.num_updates) == (2, 1)


def test_a_validation_is_finished_first():
    heard = recorder(Event.EPOCH_END, Event.SAVE)
    loop = make_loop(Sends(signal.SIGTERM, Event.VALIDATE, NUM_BATCHES), heard, val=loader())
    with pytest.raises(SystemExit):
        loop.fit(epochs=2)
    assert heard.heard == ["EPOCH_END", "SAVE"]
    assert "val_loss" in loop.history


def test_ctrl_c_again_ends_at_once():
    sends = [Sends(signal.SIGINT, Event.LOSS_READY) for _ in range(2)]
    heard = recorder(Event.SAVE, Event.CLOSE)
    loop = make_loop(*sends, heard)
    with pytest.raises(KeyboardInterrupt) as caught:
        loop.fit(epochs=1)
    assert "raised in Sends.on_loss_ready" in "\n".join(caught.value.__notes__)
    assert loop.state.num_batches == 1
    assert heard.heard == ["CLOSE"]


def test_without_handlers_the_step_is_lost():
    """The control of all above."""
    loop = make_loop(Sends(signal.SIGINT, Event.LOSS_READY))
    loop.check("train")
    loop.state.max_epochs = 1  # it would go on for ever if the signal were not sent
    with pytest.raises(KeyboardInterrupt):
        loop._run("fit", ["train"], lambda: loop.runner.run_epochs(loop.train_loader))
    assert loop.state.num_batches == 1


@pytest.mark.parametrize("number", BOTH)
def test_a_handler_of_the_program_is_called_when_all_is_closed(number):
    heard = recorder(Event.CLOSE)
    seen = []
    previous = signal.signal(number, lambda *args: seen.append([args[0], *heard.heard]))
    try:
        loop = make_loop(Sends(number, Event.LOSS_READY), heard)
        history = loop.fit(epochs=2)
    finally:
        signal.signal(number, previous)
    assert seen == [[number, "CLOSE"]]
    assert len(history) == 1


def test_a_signal_that_is_ignored_stays_ignored():
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        loop = make_loop(Sends(signal.SIGINT, Event.LOSS_READY))
        loop.fit(epochs=1)
    finally:
        signal.signal(signal.SIGINT, previous)
    assert loop.state.num_batches == NUM_BATCHES


def test_a_fit_within_a_fit_stops_both():
    inner = make_loop(Sends(signal.SIGINT, Event.LOSS_READY))
    outer = make_loop()
    outer.on(Event.BATCH_END)(lambda state: inner.fit(epochs=1))
    with pytest.raises(KeyboardInterrupt):
        outer.fit(epochs=1)
    assert (inner.state.num_batches, outer.state.num_batches) == (2, 1)


def test_an_error_after_the_signal_goes_on():
    loop = make_loop(Sends(signal.SIGTERM, Event.LOSS_READY))

    @loop.on(Event.SAVE)
    def fail(state):
        raise OSError("the disk is full")

    before = handlers()
    with pytest.raises(OSError, match="full"):
        loop.fit(epochs=1)
    assert handlers() == before


def test_in_another_thread_nothing_is_done():
    before, found = handlers(), []
    loop = make_loop()
    loop.on(Event.BATCH_END)(lambda state: found.append(handlers()))
    thread = threading.Thread(target=lambda: loop.fit(epochs=1))
    thread.start()
    thread.join()
    assert found == [before] * NUM_BATCHES


def failing_loader(at):
    def batches():
        for index, batch in enumerate(loader()):
            if index == at:
                signal.raise_signal(signal.SIGTERM)
                raise RuntimeError("DataLoader worker is killed by signal: Terminated")
            yield batch

    return batches()


def test_a_loader_that_fails_with_the_signal_is_the_stop():
    heard = recorder(Event.SAVE)
    loop = make_loop(heard, train=failing_loader(2))
    with pytest.raises(SystemExit) as caught:
        loop.fit(epochs=1)
    assert caught.value.code == 143
    assert (loop.state.num_batches, heard.heard) == (2, ["SAVE"])


def test_half_a_window_is_not_saved():
    heard = recorder(Event.SAVE, Event.CLOSE)
    loop = make_loop(Accumulate(2), heard, train=failing_loader(3))
    with pytest.raises(SystemExit) as caught:
        loop.fit(epochs=1)
    assert caught.value.code == 143
    assert heard.heard == ["CLOSE"]
    assert isinstance(caught.value.__context__, RuntimeError)


def test_a_loader_that_fails_by_itself_is_an_error():
    def batches():
        yield from loader()
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        make_loop(train=batches()).fit(epochs=1)


def test_a_forked_child_ends_by_sigterm_as_ever():
    loop = make_loop()

    @loop.on(Event.BATCH_END, once=True)
    def fork(state):
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM

    loop.fit(epochs=1)


def test_the_handler_only_sets_flags():
    names = inspect.getclosurevars(StopSignals._handle)
    assert set(names.globals) <= {"os", "signal"}
    assert set(names.builtins) <= {"KeyboardInterrupt"}


def test_importing_installs_nothing():
    code = (
        "import signal; every = [s for s in signal.valid_signals()];"
        "before = list(map(signal.getsignal, every)); import fitkit;"
        "assert before == list(map(signal.getsignal, every))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
