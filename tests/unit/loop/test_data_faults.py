"""Workers that are killed, hang or raise: it is told, nothing hangs, nothing is left."""

import gc
import multiprocessing
import os
import signal
import time

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from fitkit import Accumulate, Callback, Checkpoint, FitLoop, TensorLoader, supervised
from fitkit.store import Store


class Rows(Dataset):
    """32 rows; at `at` something goes wrong."""

    def __init__(self, at=None, fault=None):
        self.at, self.fault = at, fault

    def __len__(self):
        return 32

    def __getitem__(self, index):
        if index == self.at:
            self.fault()
        return torch.full((1,), float(index)), torch.full((1,), float(index))


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def hang():
    time.sleep(60)


def leave():
    os._exit(3)


def raise_here():
    raise KeyError("row 9 has no label")


def loop_of(loader, *callbacks, run_dir=None):
    torch.manual_seed(0)
    model = torch.nn.Linear(1, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    stack = supervised(loss=torch.nn.MSELoss(), optimizer=optimizer)
    return FitLoop(model, loader, callbacks=[*stack, *callbacks], run_dir=run_dir)


@pytest.mark.parametrize(
    ("fault", "told", "options"),
    [
        (kill, "killed by signal: Killed|exited unexpectedly", {}),
        (leave, "exited unexpectedly|exit code 3", {}),
        (hang, "timed out after 1 seconds", {"timeout": 1}),
        (raise_here, "row 9 has no label", {}),
    ],
    ids=["killed", "left", "hung", "raised"],
)
def test_a_worker_that_fails_is_told_and_all_is_closed(fault, told, options, tmp_path):
    heard = type("Closed", (Callback,), {"on_close": lambda self, state: closed.append(1)})()
    closed = []
    loader = DataLoader(Rows(9, fault), 4, num_workers=1, prefetch_factor=1, **options)
    loop = loop_of(loader, heard, Checkpoint(every=1), run_dir=tmp_path)
    begun, before = time.monotonic(), set(multiprocessing.active_children())
    with pytest.raises((RuntimeError, KeyError), match=told) as caught:
        loop.fit(epochs=1)
    assert time.monotonic() - begun < 10
    assert closed == [1]
    notes = "\n".join(caught.value.__notes__)
    assert "in the train pass, batch" in notes
    saved = Store(tmp_path / "checkpoints").latest()
    assert saved is None or saved.meta["counters"]["num_updates"] <= loop.state.num_updates
    del loop, loader, caught
    gc.collect()  # the iterator that holds the workers goes with the loop
    for child in set(multiprocessing.active_children()) - before:
        child.join(10)
    assert set(multiprocessing.active_children()) <= before


@pytest.mark.parametrize("workers", [0, 1])
def test_a_dataset_that_raises_keeps_type_and_batch(workers):
    loader = DataLoader(Rows(9, raise_here), 4, num_workers=workers)
    with pytest.raises(KeyError, match="row 9 has no label") as caught:
        loop_of(loader).fit(epochs=1)
    assert "while fetching batch 2 of train loader" in caught.value.__notes__


def test_without_the_fault_the_same_loader_is_read():
    loop = loop_of(DataLoader(Rows(), 4, num_workers=1))
    loop.fit(epochs=1)
    assert loop.state.num_batches == 8


def test_the_last_window_is_the_mean_of_what_it_has():
    x, y = torch.arange(20.0)[:, None], torch.arange(20.0)[:, None] * 2
    loop = loop_of(TensorLoader(x, y, batch_size=2), Accumulate(3))
    loop.fit(epochs=1)  # ten batches: three windows of three, one of one
    torch.manual_seed(0)
    weight = torch.nn.Linear(1, 1, bias=False).weight.detach()
    for begin in range(0, 20, 6):
        rows, targets = x[begin : begin + 6], y[begin : begin + 6]
        weight -= 1e-4 * (2 * (rows @ weight - targets) * rows).mean(0)
    torch.testing.assert_close(loop.model.weight.detach(), weight)
    assert loop.state.num_updates == 4


class Draws(Dataset):
    """Every row is a number drawn where it is made."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return torch.rand(1), torch.zeros(1)


def test_workers_and_epochs_draw_other_numbers():
    seen = []

    class Keep(Callback):
        def on_batch_end(self, state):
            seen.extend(state.inputs[:, 0].tolist())

    loop_of(DataLoader(Draws(), 2, num_workers=2), Keep()).fit(epochs=2)
    assert len(set(seen)) == 16
