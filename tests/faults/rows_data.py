"""D12: workers and memory: nothing is copied for them, a full /dev/shm is told as what it is."""

import copy
import os
import resource
import signal

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from fitkit import FitLoop, supervised
from fitkit.loop import runner
from tests.faults.off import failing_without
from tests.faults.row import Row

NUM = 1_000_000
HINT = "shared memory"


class Huge(Dataset):
    """A list of a million numbers, which must not be copied."""

    def __init__(self, fault=None):
        self.rows, self.fault = list(range(NUM)), fault

    def __len__(self):
        return 64

    def __getitem__(self, index):
        if self.fault and index == 40 and get_worker_info():
            self.fault()
        return torch.full((1,), self.rows[index] / NUM), torch.zeros(1)

    def __reduce_ex__(self, protocol):
        raise AssertionError("the dataset is copied")


def loop_of(dataset, workers):
    torch.manual_seed(0)
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader = DataLoader(dataset, 4, num_workers=workers)
    return FitLoop(
        model, loader, callbacks=supervised(loss=torch.nn.MSELoss(), optimizer=optimizer)
    )


def shared(root):
    def not_copied(workers):
        loop = loop_of(Huge(), workers)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        loop.fit(epochs=3)
        grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert loop.state.num_batches == 48
        assert grown_kib < 20_000  # the list alone has 40,000

    def exhausted(workers):
        loop = loop_of(Huge(lambda: os.kill(os.getpid(), signal.SIGBUS)), workers)
        with pytest.raises(RuntimeError) as caught:
            loop.fit(epochs=1)
        told = "\n".join([str(caught.value), str(caught.value.__cause__), *caught.value.__notes__])
        for token in ("Bus error", HINT, "batch"):
            assert token in told, told

    workers = (1, 2)
    return [
        *(lambda n=n: not_copied(n) for n in (0, *workers)),
        *(lambda n=n: exhausted(n) for n in workers),
    ]


def copying(root):
    """A feed that keeps a copy of what it reads."""
    real = runner.Feed

    def feed(loader, *args, **options):
        return real(copy.deepcopy(loader), *args, **options)

    return failing_without(lambda: shared(root)[:2], (runner, "Feed", feed))


ROWS = [Row("D12", "workers share the dataset; no shared memory left", shared, copying, share=2)]
