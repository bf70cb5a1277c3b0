"""Sample and class weights: the same on every kind of loader, and the same as Keras computes."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from fitkit import ClassWeights, ConfigError, DataError, SampleWeights, TensorLoader
from fitkit.data import Feed, length
from fitkit.data.gather import Gather

X = torch.arange(20.0).reshape(10, 2)
Y = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3, 0, 1])
CLASSES = {0: 0.5, 2: 4.0}
EXPECTED = torch.tensor([0.5, 1, 4, 1, 0.5, 1, 4, 1, 0.5, 1])


def plain_loader():
    return DataLoader(TensorDataset(X, Y), batch_size=4)


class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return 10

    def __getitem__(self, index):
        return X[index], Y[index]


KINDS = {
    "TensorLoader": lambda: TensorLoader(X, Y, batch_size=4),
    "DataLoader": plain_loader,
    "DataLoader over rows": lambda: DataLoader(Rows(), batch_size=4),
    "list": lambda: list(plain_loader()),
    "numpy": lambda: [(x.numpy(), y.numpy()) for x, y in plain_loader()],
    "generator": lambda: (batch for batch in plain_loader()),
}


def weights_of(loader):
    items = list(Feed(loader, "cpu"))
    batches = [item.take() if isinstance(item, Gather) else item for item in items]
    for x, y, weight in batches:
        assert len(x) == len(y) == len(weight)
        assert torch.equal(X[(x[:, 0] / 2).long()], x)
    return torch.cat([weight for _, _, weight in batches])


@pytest.mark.parametrize("kind", KINDS)
def test_class_weights_on_every_loader(kind):
    weights = weights_of(ClassWeights(KINDS[kind](), CLASSES))
    assert weights.dtype == torch.float32
    assert torch.equal(weights, EXPECTED)


@pytest.mark.parametrize("kind", KINDS)
def test_a_function_of_the_batch_on_every_loader(kind):
    loader = SampleWeights(KINDS[kind](), lambda x, y: x[:, 0] + y)
    assert torch.equal(weights_of(loader), X[:, 0] + Y)


@pytest.mark.parametrize(
    "make",
    [
        lambda a: TensorLoader(*a, batch_size=4, shuffle=True),
        lambda a: DataLoader(TensorDataset(*a), 4, shuffle=True),
    ],
)
def test_an_array_of_weights_follows_the_order_of_the_rows(make):
    for x, _, weight in SampleWeights(make((X, Y)), np.arange(10.0) * 2):
        assert torch.equal(weight, x[:, 0].double())


def test_resident_arrays_are_weighted_once_and_gathered_with_the_rest():
    loader = ClassWeights(TensorLoader(X, Y, batch_size=4), CLASSES)
    first, second = (list(Feed(loader, "cpu", epoch)) for epoch in (0, 1))
    assert all(isinstance(item, Gather) for item in first)
    assert first[0].arrays[2] is second[2].arrays[2]


def test_columns_and_unknown_classes():
    loader = TensorLoader(X, torch.full((10, 1), 7), batch_size=10)
    assert torch.equal(weights_of(ClassWeights(loader, CLASSES)), torch.ones(10))
    assert torch.equal(weights_of(ClassWeights(KINDS["list"](), {})), torch.ones(10))


def test_classes_and_weights_of_numpy():
    weights = dict(zip(np.arange(3), np.array([0.5, 1.0, 4.0], "float32"), strict=True))
    assert torch.equal(weights_of(ClassWeights(KINDS["list"](), weights)), EXPECTED)


def test_length_and_epoch_are_those_of_the_loader():
    loader = TensorLoader(X, Y, batch_size=4, shuffle=True)
    wrapped = ClassWeights(loader, CLASSES)
    assert length(wrapped) == len(wrapped) == 3
    assert length(ClassWeights(iter([]), CLASSES)) is None
    loader.set_epoch(2)
    expected = [x for x, _ in loader]
    assert all(map(torch.equal, expected, [x.take()[0] for x in Feed(wrapped, "cpu", 2)]))


def test_wrappers_nest_no_weights_twice():
    twice = ClassWeights(ClassWeights(KINDS["TensorLoader"](), CLASSES), CLASSES)
    with pytest.raises(DataError, match="multiply both into one"):
        next(iter(twice))


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (Y.float(), r"float32 expected class indices"),
        (torch.nn.functional.one_hot(Y), "which is one-hot"),
        ({"a": Y}, "SampleWeights, which takes a function"),
    ],
)
def test_targets_that_are_no_class_indices(targets, message):
    for loader in (TensorLoader(X, targets), [(X, targets)]):
        with pytest.raises(DataError, match=message):
            next(iter(ClassWeights(loader, CLASSES)))


@pytest.mark.parametrize("weights", [{-1: 1.0}, {"a": 1.0}, {0: "b"}, {0: float("nan")}, {1: -2}])
def test_weights_that_are_none(weights):
    with pytest.raises(ConfigError, match="expected a class index and its weight"):
        ClassWeights(KINDS["list"](), weights)


def test_weights_that_do_not_fit():
    with pytest.raises(DataError, match="one per sample"):
        next(iter(SampleWeights(KINDS["list"](), lambda x, y: x.sum())))
    with pytest.raises(DataError, match=r"shape \(3,\), expected 10"):
        next(iter(SampleWeights(KINDS["TensorLoader"](), np.ones(3))))
    with pytest.raises(DataError, match="does not tell which rows"):
        next(iter(SampleWeights(KINDS["list"](), np.ones(10))))


def test_a_loader_that_is_none():
    with pytest.raises(TypeError, match="expected an iterable of batches"):
        ClassWeights(X, CLASSES)
    with pytest.raises(TypeError, match="is not a number"):
        SampleWeights(KINDS["list"](), "heavy")
