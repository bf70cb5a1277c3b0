"""How each kind of loader is begun, counted and told its epoch."""

import itertools

import keras
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset, TensorDataset

from fitkit.data import Feed, Gather, TensorLoader, length

X = torch.arange(10.0).reshape(10, 1)
ROWS = TensorDataset(X)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(X)


class SizedStream(Stream):
    def __len__(self):
        return 10


class Squares(keras.utils.PyDataset):
    def __init__(self, calls=None):
        super().__init__()
        self.calls = [] if calls is None else calls

    def __len__(self):
        return 3

    def __getitem__(self, index):
        self.calls.append(index)
        return np.full((2, 1), index, dtype=np.float32), np.full((2,), index**2)

    def on_epoch_begin(self):
        self.calls.append("begin")

    def on_epoch_end(self):
        self.calls.append("end")


class Endless(Squares):
    __len__ = None

    @property
    def num_batches(self):
        return None


class Uncounted(Squares):
    __len__ = None

    @property
    def num_batches(self):
        raise NotImplementedError


class LikeTensorFlow:
    """What fitkit asks of a tf.data.Dataset, with read-only arrays as TensorFlow gives them."""

    def __len__(self):
        raise TypeError("The dataset is infinite.")

    def __iter__(self):
        raise AssertionError("yields TensorFlow's tensors")

    def as_numpy_iterator(self):
        for value in range(2):
            array = np.full((2,), value)
            array.flags.writeable = False
            yield {"x": array}


@pytest.mark.parametrize(
    ("loader", "expected"),
    [
        (TensorLoader(X, batch_size=4), 3),
        (DataLoader(ROWS, batch_size=4), 3),
        (DataLoader(Stream(), batch_size=4), None),
        (DataLoader(SizedStream(), batch_size=4), 3),
        (Squares(), 3),
        (Endless(), None),
        (Uncounted(), None),
        (LikeTensorFlow(), None),
        ((batch for batch in []), None),
        (iter([]), None),
        ([X, X], 2),
    ],
)
def test_length(loader, expected):
    assert length(loader) == expected


@pytest.mark.parametrize("workers", [0, 1])
def test_a_dataloader_with_and_without_workers(workers):
    loader = DataLoader(list(range(5)), batch_size=2, num_workers=workers)
    assert [batch.tolist() for batch in Feed(loader, "cpu")] == [[0, 1], [2, 3], [4]]


def test_a_stream_in_a_dataloader():
    batches = list(Feed(DataLoader(Stream(), batch_size=4), "cpu"))
    assert torch.equal(torch.cat(batches), X)


def test_a_pydataset_keeps_its_order_and_hears_of_the_epoch():
    dataset = Squares()
    batches = list(Feed(dataset, "cpu"))
    assert dataset.calls == ["begin", 0, 1, 2, "end"]
    assert [y.tolist() for _, y in batches] == [[0, 0], [1, 1], [4, 4]]
    assert batches[1][0].tolist() == [[1], [1]]


def test_a_pydataset_left_in_mid_pass_does_not_hear_of_its_end():
    dataset = Squares()
    next(iter(Feed(dataset, "cpu")))
    assert dataset.calls == ["begin", 0]


def test_a_pydataset_without_end():
    batches = itertools.islice(Feed(Endless(), "cpu"), 5)
    assert [int(x[0]) for x, _ in batches] == [0, 1, 2, 3, 4]


def test_tensorflow_gives_numpy():
    batches = list(Feed(LikeTensorFlow(), "cpu"))
    assert [batch["x"].tolist() for batch in batches] == [[0, 0], [1, 1]]


def test_tensorflow_itself():
    tf = pytest.importorskip("tensorflow")
    dataset = tf.data.Dataset.range(5).batch(2)
    assert [batch.tolist() for batch in Feed(dataset, "cpu")] == [[0, 1], [2, 3], [4]]
    assert length(dataset) == 3
    assert length(dataset.repeat()) is None


class OnlyIndexed:
    """The old way to be iterable: indices from 0 until IndexError."""

    def __getitem__(self, index):
        return [torch.tensor([1.0]), torch.tensor([2.0])][index]


def test_other_iterables():
    for loader in ([X[:4], X[4:]], (part for part in (X[:4], X[4:])), iter([X])):
        assert torch.equal(torch.cat(list(Feed(loader, "cpu"))), X)
    assert [batch.tolist() for batch in Feed(OnlyIndexed(), "cpu")] == [[1], [2]]


def test_every_part_is_told_the_epoch_once():
    class Part:
        def __init__(self):
            self.epochs = []

        def set_epoch(self, epoch):
            self.epochs.append(epoch)

        def __iter__(self):
            return iter([X])

    loader = Part()
    loader.sampler = shared = Part()
    loader.dataset = Part()
    loader.batch_sampler = Part()
    loader.batch_sampler.sampler = shared
    for epoch in (0, 3):
        list(Feed(loader, "cpu", epoch))
    parts = [loader, shared, loader.dataset, loader.batch_sampler]
    assert [part.epochs for part in parts] == [[0, 3]] * 4


def test_a_distributed_sampler_draws_a_new_order_every_epoch():
    sampler = DistributedSampler(ROWS, num_replicas=2, rank=1, shuffle=True)
    loader = DataLoader(ROWS, batch_size=5, sampler=sampler)

    def rows(epoch):
        (item,) = Feed(loader, "cpu", epoch)
        assert isinstance(item, Gather)
        return item.index.tolist()

    assert rows(0) == rows(0)
    assert rows(0) != rows(1)


def test_a_tensor_loader_draws_the_order_of_the_epoch():
    loader = TensorLoader(X, batch_size=10, shuffle=True)

    def rows(epoch):
        return [gather.index.tolist() for gather in Feed(loader, "cpu", epoch)]

    assert rows(2) == rows(2)
    assert rows(2) != rows(3)
