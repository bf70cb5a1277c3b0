"""C1 to C3, C6: signals that end a run, or hold it up. Each trial forks."""

import faulthandler
import os
import random
import shutil
import signal
import sys
import time
import warnings
from contextlib import contextmanager
from pathlib import Path

from fitkit.loop import fit_loop
from fitkit.store import Store
from tests.faults.programs import Seen, same, torch_loop
from tests.faults.row import Row, failing

TIMEOUT_S = 180
CODES = {signal.SIGTERM: 143, signal.SIGINT: 130}


def forked(body):
    """Run `body` in a child with a process group of its own; it ends with the code of a program."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setpgid(0, 0)
            faulthandler.register(signal.SIGUSR1, file=sys.__stderr__)  # see `code_of`
            signal.signal(signal.SIGINT, signal.default_int_handler)  # a test runner may ignore it
            body()
            code = 0
        except SystemExit as ending:
            code = ending.code
        except KeyboardInterrupt:
            code = 130
        finally:
            os._exit(code)
    return pid


def code_of(pid):
    """Wait for a child; -n if signal n has killed it."""
    begun = time.monotonic()
    while time.monotonic() - begun < TIMEOUT_S:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, signal.SIGUSR1)
    time.sleep(1)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise AssertionError("a child hangs")


def train(folder, loader="TensorLoader"):
    """A run that says when it is within fit, how far it came, and its end."""
    folder = Path(folder)
    folder.mkdir(exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about workers: their number, their random numbers
        loop = torch_loop(folder, loader, extra=(Seen(),))
        try:
            loop.fit(epochs=3, resume="auto")
        finally:
            (folder / "updates").write_text(str(loop.state.num_updates))
    (folder / "end").write_text(same(loop))


def whole(root, loader):
    folder = Path(root) / f"whole {loader}"
    begun = time.monotonic()
    assert code_of(forked(lambda: train(folder, loader))) == 0
    return (folder / "end").read_text(), time.monotonic() - begun


def stops(root, number=100, loader="TensorLoader", send=os.kill, numbers=(signal.SIGTERM,)):
    made = {}

    def trial(index):
        if not made:
            made["end"], made["seconds"] = whole(root, loader)
        folder = Path(root) / f"stop{index} {loader}"
        sent = numbers[index % len(numbers)]
        pid = forked(lambda: train(folder, loader))
        time.sleep(made["seconds"] * (0.02 + random.Random(index).random()))
        send(pid, sent)
        code = code_of(pid)
        assert code in (0, CODES[sent], -sent), code
        if code == CODES[sent] and (folder / "updates").exists():
            updates = int((folder / "updates").read_text())
            saved = Store(folder / "checkpoints").latest() if updates else None
            assert (saved.meta["counters"]["num_updates"] if saved else 0) == updates
        assert is_empty(pid)
        assert code_of(forked(lambda: train(folder, loader))) == 0
        assert (folder / "end").read_text() == made["end"]
        shutil.rmtree(folder)

    return [lambda index=index: trial(index) for index in range(number)]  # fmt: skip


def is_empty(group):
    """Whether all processes of a group are gone after five seconds."""
    for _ in range(500):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.01)
    return False


def group_stops(root, number=50):
    both = (signal.SIGTERM, signal.SIGINT)
    return stops(root, number, "workers", os.killpg, both)


@contextmanager
def without_handlers():
    """fit as it was without StopSignals."""

    @contextmanager
    def nothing(state):
        yield

    real, fit_loop.StopSignals = fit_loop.StopSignals, nothing
    try:
        yield
    finally:
        fit_loop.StopSignals = real


def unprotected(root):
    with without_handlers():
        return late(root, signal.SIGTERM) + late(root, signal.SIGINT)


def late(root, number):
    """How many checks fail for a signal that comes in mid-run, at update 11."""
    folder = Path(root) / f"late{number}"

    def body():
        loop = torch_loop(folder, extra=(SendsAt(number, 11),))
        loop.fit(epochs=3)

    code = code_of(forked(body))
    saved = Store(folder / "checkpoints").latest()
    return (code != CODES[number]) + (saved is None or saved.meta["counters"]["num_updates"] != 11)


class SendsAt(Seen):
    """Sends this very process a signal within batch `at`, `times` times."""

    def __init__(self, number, at, times=1):
        super().__init__()
        self.number, self.at, self.times = number, at, times

    def on_batch_begin(self, state):
        if state.num_batches + 1 == self.at and hasattr(state, "phase") and state.phase == "train":
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)


def twice(root):
    """Ctrl-C again: it ends at once, and what was saved is intact."""

    def trial(index):
        folder = Path(root) / f"twice{index}"

        def body():
            loop = torch_loop(folder, extra=(SendsAt(signal.SIGINT, 9 + index, times=2),))
            try:
                loop.fit(epochs=3)
            finally:
                assert loop.state.num_batches == 8 + index  # the batch did not end

        assert code_of(forked(body)) == 130
        assert Store(folder / "checkpoints").latest().meta["counters"]["num_updates"] == 7

    return [lambda index=index: trial(index) for index in range(5)]


def patient(root):
    """A second Ctrl-C that is taken for the first one: the step is finished."""
    real = fit_loop.StopSignals._handle

    def only_first(self, number, frame):
        if self._state.stop_signal is None:
            real(self, number, frame)

    fit_loop.StopSignals._handle = only_first
    try:
        return failing(twice(root))
    finally:
        fit_loop.StopSignals._handle = real


def held_up(root):
    """Stopped and continued, the terminal gone, nobody reading what is printed."""

    def trial(kind):
        end, seconds = whole(root, "TensorLoader")
        folder = Path(root) / f"held {kind}"
        reader, writer = os.pipe()

        def body():
            os.dup2(writer, 1)
            os.close(reader)
            train(folder)

        pid = forked(body)
        if kind == "pipe":
            os.close(reader)
        else:
            time.sleep(seconds / 2)
            os.kill(pid, signal.SIGSTOP)
            time.sleep(0.5)
            os.kill(pid, signal.SIGCONT)
        assert code_of(pid) == 0
        assert (folder / "end").read_text() == end

    return [lambda kind=kind: trial(kind) for kind in ("stop", "pipe")]


def not_continued(root):
    """A process that was stopped for good is seen."""
    pid = forked(lambda: os.kill(os.getpid(), signal.SIGSTOP))
    time.sleep(0.2)
    ended = os.waitpid(pid, os.WNOHANG)[0] != 0
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return int(not ended)


ROWS = [
    Row("C1", "SIGTERM at any instant", stops, unprotected, share=50),
    Row("C2", "SIGTERM and Ctrl-C to the group, two workers", group_stops, unprotected, share=50),
    Row("C3", "Ctrl-C twice", twice, patient, share=3),
    Row("C6", "SIGSTOP and SIGCONT; nobody reads the output", held_up, not_continued, share=2),
]
