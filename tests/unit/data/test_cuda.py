"""The same batches on a CUDA device."""

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from fitkit.data import Feed, Gather, TensorLoader, placement

pytestmark = pytest.mark.gpu

X = torch.randn(1000, 64)
Y = torch.arange(1000)


def read(loader):
    for item in Feed(loader, "cuda"):
        batch = item.take() if isinstance(item, Gather) else item
        assert {tensor.device.type for tensor in batch} == {"cuda"}
        torch.cuda._sleep(100_000)  # the step is busy while the next copy runs
        yield batch[0] * 2, batch[1]


@pytest.mark.parametrize("free", [None, 0])
@pytest.mark.parametrize(
    "make",
    [
        lambda: TensorLoader(X, Y, batch_size=32),
        lambda: DataLoader(TensorDataset(X, Y), batch_size=32),
        lambda: DataLoader(TensorDataset(X, Y), batch_size=32, pin_memory=True),
        lambda: DataLoader(TensorDataset(X.cuda(), Y.cuda()), batch_size=32),
        lambda: DataLoader(list(zip(X, Y, strict=True)), batch_size=32),
        lambda: [[X[:500].numpy(), Y[:500].numpy()], [X[500:], Y[500:]]],
    ],
)
def test_batches_arrive_whole(make, free, monkeypatch):
    if free is not None:
        monkeypatch.setattr(placement, "free_bytes", lambda device: free)
    x, y = zip(*read(make()), strict=True)
    assert torch.equal(torch.cat(x).cpu(), X * 2)
    assert torch.equal(torch.cat(y).cpu(), Y)


def test_a_tensor_loader_that_fits_is_resident():
    items = list(Feed(TensorLoader(X, Y), "cuda"))
    assert all(isinstance(item, Gather) and item.index.is_cuda for item in items)
    assert len({item.arrays[0].data_ptr() for item in items}) == 1
