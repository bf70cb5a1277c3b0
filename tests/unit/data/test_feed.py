import itertools
import time

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

from fitkit.data import Feed, Gather, TensorLoader, feed, placement
from fitkit.errors import DataError

X = torch.arange(10.0).reshape(10, 1)
Y = torch.arange(10)


class Counting:
    """Iterable that counts its `iter()` and its batches."""

    def __init__(self, num_batches=4):
        self.num_batches = num_batches
        self.begun = 0
        self.fetched = 0

    def __iter__(self):
        self.begun += 1
        for index in range(self.num_batches):
            self.fetched += 1
            yield {"x": np.full((2,), index), "scale": 0.5, "none": None}


def test_one_iter_per_pass_and_no_batch_ahead():
    loader = Counting()
    for index, batch in enumerate(Feed(loader, "cpu")):
        assert (loader.begun, loader.fetched) == (1, index + 1)
        assert batch["x"].tolist() == [index, index]
        assert (batch["scale"].item(), batch["none"]) == (0.5, None)
    assert (loader.begun, index) == (1, 3)


def test_nothing_is_read_until_the_first_batch_is_asked_for():
    loader = Counting()
    batches = iter(Feed(loader, "cpu"))
    assert loader.begun == 0
    next(batches)
    assert loader.fetched == 1


def test_an_iterator_that_counts_what_is_left_is_begun_once(monkeypatch):
    class Left:
        def __init__(self):
            self.left = [X]

        def __len__(self):
            return len(self.left)  # 0, and so false, after the only batch

        def __iter__(self):
            return self

        def __next__(self):
            if not self.left:
                raise StopIteration
            return self.left.pop()

    passing = Feed([X], "cpu")
    opened = []
    monkeypatch.setattr(passing, "_open", lambda: opened.append(1) or Left())
    assert len(list(itertools.islice(passing, 3))) == 1
    assert opened == [1]


@pytest.mark.parametrize(
    "loader",
    [TensorLoader(X, Y, batch_size=4), DataLoader(TensorDataset(X, Y), batch_size=4)],
)
def test_resident_arrays_are_gathered_when_read(loader):
    items = list(Feed(loader, "cpu"))
    assert all(isinstance(item, Gather) for item in items)
    assert [item.take()[1].tolist() for item in items] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


@pytest.mark.parametrize(
    "loader",
    [
        TensorLoader(X, Y, batch_size=4, device="cpu"),
        DataLoader(TensorDataset(X, Y), batch_size=4),
        [(X, Y)],
        [[X.numpy(), 3]],
    ],
)
def test_batches_come_on_the_device(loader):
    for batch in Feed(loader, "meta"):  # a second device every machine has
        assert [tensor.device.type for tensor in batch] == ["meta", "meta"]


def test_a_tensor_loader_moves_along():
    items = list(Feed(TensorLoader(X, Y, batch_size=4), "meta"))
    assert [item.take()[0].shape[0] for item in items] == [4, 4, 2]
    assert {item.device.type for item in items} == {"meta"}


def test_waiting_is_measured():
    def slow():
        for _ in range(3):
            time.sleep(0.01)
            yield X

    passing = Feed(slow(), "cpu")
    for _ in passing:
        time.sleep(0.05)  # the step: not counted
    assert 0.03 <= passing.wait_s < 0.1


def test_an_error_of_the_loader_comes_with_a_note():
    class Broken(Dataset):
        def __len__(self):
            return 8

        def __getitem__(self, index):
            if index == 5:
                raise OSError("cannot read 5.png")
            return index

    batches = iter(Feed(DataLoader(Broken(), batch_size=2), "cpu", name="val_loader"))
    assert [next(batches).tolist(), next(batches).tolist()] == [[0, 1], [2, 3]]
    with pytest.raises(OSError, match="cannot read") as caught:
        next(batches)
    assert caught.value.__notes__ == ["while fetching batch 2 of val_loader"]


def test_a_bad_leaf_is_told_before_anything_uses_the_batch():
    loader = [({"image": X, "name": ["a", "b"]}, Y)]
    with pytest.raises(DataError, match=r"batch\[0\]\['name'\]\[0\] is a builtins.str") as caught:
        next(iter(Feed(loader, "cpu", name="train_loader")))
    assert caught.value.__notes__ == ["while fetching batch 0 of train_loader"]


class HostCopier:
    """Stands for the copier to CUDA; what it copied is told by its numbers being negative."""

    def __init__(self, device):
        self.device = device

    def start(self, batch):
        return batch

    def finish(self, ticket):
        return [-tensor for tensor in ticket]


@pytest.fixture
def without_cuda(monkeypatch):
    monkeypatch.setattr(feed, "CudaCopier", HostCopier)
    monkeypatch.setattr(placement, "free_bytes", lambda device: 0)


@pytest.mark.usefixtures("without_cuda")
@pytest.mark.parametrize(
    "loader",
    [
        TensorLoader(X, Y, batch_size=5),
        DataLoader(TensorDataset(X, Y), batch_size=5),
        DataLoader(list(zip(X, Y, strict=True)), batch_size=5),
        [[X[:5].numpy(), Y[:5]], [X[5:], Y[5:].numpy()]],
    ],
)
def test_host_batches_go_through_the_copier(loader):
    batches = list(Feed(loader, "cuda:0"))
    assert [y.tolist() for _, y in batches] == [[0, -1, -2, -3, -4], [-5, -6, -7, -8, -9]]


@pytest.mark.usefixtures("without_cuda")
def test_on_cuda_one_batch_is_read_ahead_and_an_error_waits_its_turn():
    loader = Counting(0)
    with pytest.raises(DataError, match="gave no batches"):
        list(Feed(loader, "cuda:0"))

    def source():
        yield [X]
        yield ["text"]

    batches = iter(Feed(source(), "cuda:0"))
    assert torch.equal(next(batches)[0], -X)
    with pytest.raises(DataError, match=r"batch\[0\] is a builtins.str") as caught:
        next(batches)
    assert caught.value.__notes__ == ["while fetching batch 1 of loader"]


@pytest.mark.usefixtures("without_cuda")
def test_the_copier_is_left_out_where_nothing_needs_it(monkeypatch):
    """Control of the tests above: without a copier no number changes its sign."""
    monkeypatch.setattr(feed, "is_resident", lambda loader, device: True)
    monkeypatch.setattr(feed, "place", lambda structure, device: structure)
    (batch,) = Feed([[Y]], "cuda:0")
    assert batch[0].tolist() == Y.tolist()


def test_a_pass_that_ends_before_its_first_batch_has_drawn_nothing():
    """A signal to the group ends the workers of a loader, maybe just after the pass began."""

    class Died(torch.utils.data.Dataset):
        def __len__(self):
            return 8

        def __getitem__(self, index):
            raise RuntimeError("a worker was killed")

    loader = torch.utils.data.DataLoader(Died(), batch_size=4, shuffle=True)
    before = torch.get_rng_state()
    assert not list(Feed(loader, "cpu", ends_on_error=lambda: True))
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(RuntimeError, match="a worker was killed"):  # the negative control
        list(Feed(loader, "cpu"))
    assert not torch.equal(torch.get_rng_state(), before)
