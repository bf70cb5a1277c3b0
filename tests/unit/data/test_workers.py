"""Workers killed within torch's event: the run ends all the same."""

import multiprocessing.synchronize
import os
import signal
import sys
import time
import warnings

import pytest
import torch
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from fitkit import Checkpoint, FitLoop, supervised
from fitkit.data import source, workers
from tests.faults.programs import Rows
from tests.faults.rows_signals import forked

KILLED = 7  # the code of a child that was told of a worker's death
KINDS = {
    "DataLoader": DataLoader,
    "persistent": lambda *args, **options: DataLoader(*args, persistent_workers=True, **options),
    "StatefulDataLoader": StatefulDataLoader,
}


class Dying(Rows):
    """Its worker takes the lock of the event that ends it, and then `die` is called."""

    def __init__(self, die):
        super().__init__()
        self.die = die

    def __getitem__(self, index):
        if index == 40:
            _event_of_worker()._cond.acquire()
            self.die()
            time.sleep(60)
        return super().__getitem__(index)


def _event_of_worker():
    frame = sys._getframe()
    while "done_event" not in frame.f_locals:
        frame = frame.f_back
    return frame.f_locals["done_event"]


def _train(folder, kind, die):
    warnings.simplefilter("ignore")  # more workers than cores; this process is a child
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    stack = supervised(loss=torch.nn.MSELoss(), optimizer=optimizer)
    loader = KINDS[kind](Dying(die), batch_size=4, num_workers=2)
    loop = FitLoop(model, loader, callbacks=[*stack, Checkpoint(every=2)], run_dir=folder)
    try:
        loop.fit(epochs=2)
    except RuntimeError as error:
        raise SystemExit(KILLED if "killed by signal" in str(error) else 1) from error


def _code_within(pid, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "hangs"


def _terminate_all():
    os.killpg(0, signal.SIGTERM)


def _run_out_of_memory():
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("die", "code"), [(_terminate_all, 143), (_run_out_of_memory, KILLED)])
def test_a_worker_that_dies_with_the_lock_of_its_event(kind, die, code, tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "LOCK_S", 0.2)
    pid = forked(lambda: _train(tmp_path, kind, die))
    assert _code_within(pid, 180) == code


def test_without_the_protection_the_run_hangs(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "begin", iter)
    pid = forked(lambda: _train(tmp_path, "DataLoader", _terminate_all))
    assert _code_within(pid, 8) == "hangs"


def test_the_event_is_replaced_once_and_workers_end_as_ever():
    loader = DataLoader(Rows(), 40, num_workers=1, persistent_workers=True)
    first, second = workers.begin(loader), workers.begin(loader)
    assert first is second
    assert isinstance(first._workers_done_event._event, multiprocessing.synchronize.Event)
    assert len(list(second)) == 4
    processes = list(first._workers)
    del first, second, loader
    assert [process.exitcode for process in processes] == [0]
