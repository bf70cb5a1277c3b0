"""The fast path against the DataLoader itself: the same batches, the same random numbers."""

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
)

from fitkit.data import Feed, Gather, source
from fitkit.data.fast_path import rows_of

X = torch.arange(23 * 3, dtype=torch.float32).reshape(23, 3)
Y = torch.arange(23)
ROWS = TensorDataset(X, Y)


class RandomSizes:
    """A batch sampler that draws from the global generator for every batch."""

    def __iter__(self):
        for _ in range(6):
            size = int(torch.randint(1, 5, ()))
            yield torch.randint(0, 23, (size,)).tolist()


class EagerSizes:
    """A batch sampler that draws when it is iterated, not when the first batch is asked for."""

    def __iter__(self):
        return iter([torch.randperm(23)[:4].tolist() for _ in range(3)])


class OneShot:
    """A batch sampler whose batches can be read once."""

    def __iter__(self):
        return (iter(indices) for indices in ([3, 1], [4, 1, 5]))


def seeded():
    return torch.Generator().manual_seed(5)


LOADERS = {
    "in order": lambda: DataLoader(ROWS, batch_size=4),
    "shuffle": lambda: DataLoader(ROWS, batch_size=4, shuffle=True),
    "drop_last": lambda: DataLoader(ROWS, batch_size=4, shuffle=True, drop_last=True),
    "generator": lambda: DataLoader(ROWS, batch_size=4, shuffle=True, generator=seeded()),
    "generator in order": lambda: DataLoader(ROWS, batch_size=4, generator=seeded()),
    "batch of one": lambda: DataLoader(ROWS, shuffle=True),
    "subset sampler": lambda: DataLoader(
        ROWS, batch_size=4, sampler=SubsetRandomSampler(range(3, 20))
    ),
    "replacement": lambda: DataLoader(
        ROWS, batch_size=4, sampler=RandomSampler(ROWS, replacement=True, num_samples=70)
    ),
    "global generator": lambda: DataLoader(
        ROWS,
        batch_size=4,
        sampler=RandomSampler(
            ROWS, replacement=True, num_samples=70, generator=torch.default_generator
        ),
    ),
    "weighted": lambda: DataLoader(
        ROWS, batch_size=4, sampler=WeightedRandomSampler(torch.rand(23), 15)
    ),
    "batch_sampler": lambda: DataLoader(
        ROWS, batch_sampler=BatchSampler(SequentialSampler(ROWS), 5, drop_last=True)
    ),
    "own batch_sampler": lambda: DataLoader(ROWS, batch_sampler=RandomSizes()),
    "eager batch_sampler": lambda: DataLoader(ROWS, batch_sampler=EagerSizes()),
    "list of batches": lambda: DataLoader(ROWS, batch_sampler=[[3, 1], [4, 1, 5]]),
    "negative indices": lambda: DataLoader(ROWS, batch_sampler=[[-1, 1], [4, -23]]),
    "tensor indices": lambda: DataLoader(
        ROWS, batch_sampler=[torch.tensor([2, 7]), [torch.tensor(3), torch.tensor(4)]]
    ),
    "numpy indices": lambda: DataLoader(ROWS, batch_sampler=[np.array([2, 7]), list(np.arange(5))]),
    "other indices": lambda: DataLoader(ROWS, batch_sampler=[np.array([1], "int32"), [True, True]]),
    "iterators": lambda: DataLoader(ROWS, batch_sampler=OneShot()),
    "pin_memory": lambda: DataLoader(ROWS, batch_size=4, pin_memory=torch.cuda.is_available()),
    "one tensor": lambda: DataLoader(TensorDataset(Y), batch_size=4, shuffle=True),
}


def read(make, take):
    """Two passes: every batch, and the state of the random numbers after each and at the end."""
    torch.manual_seed(0)
    loader = make()
    own = loader.generator
    batches, states = [], []
    for _ in range(2):
        for batch in take(loader):
            batches.append(batch)
            states.append(torch.get_rng_state())
            states.append(own.get_state() if own else torch.empty(0))
        states.append(torch.get_rng_state())
        states.append(own.get_state() if own else torch.empty(0))
    return batches, states


def by_gather(loader):
    for item in Feed(loader, "cpu"):
        yield item.take() if isinstance(item, Gather) else item


def same(one, other):
    """Equal batches of equal containers, and equal random states after every one of them."""
    return (
        len(one[0]) == len(other[0])
        and all(
            type(a) is type(b) is list
            and len(a) == len(b)
            and all(s.dtype == t.dtype and torch.equal(s, t) for s, t in zip(a, b, strict=True))
            for a, b in zip(one[0], other[0], strict=True)
        )
        and all(torch.equal(s, t) for s, t in zip(one[1], other[1], strict=True))
    )


@pytest.mark.parametrize("make", LOADERS.values(), ids=LOADERS)
def test_same_batches_and_same_random_numbers(make):
    assert rows_of(make()) is not None
    assert same(read(make, by_gather), read(make, iter))


def test_without_the_draw_of_torch_the_comparison_fails():
    """Control: a path that only asks the batch sampler is told apart."""

    def careless(loader):
        return ([X[i], Y[i]] for i in loader.batch_sampler)

    assert not same(read(LOADERS["shuffle"], careless), read(LOADERS["shuffle"], iter))
    assert not same(read(LOADERS["in order"], careless), read(LOADERS["in order"], iter))


def test_leaving_in_mid_pass_draws_the_same():
    def states(take):
        torch.manual_seed(0)
        loader = LOADERS["own batch_sampler"]()
        for index, _ in enumerate(take(loader)):
            if index == 2:
                break
        return torch.get_rng_state()

    assert torch.equal(states(by_gather), states(iter))


def count_samples(monkeypatch):
    """Count how often a pass asks the dataset for one sample."""
    counts = []
    original = TensorDataset.__getitem__
    monkeypatch.setattr(
        TensorDataset, "__getitem__", lambda self, i: counts.append(i) or original(self, i)
    )
    batches = list(by_gather(DataLoader(ROWS, batch_size=4)))
    assert torch.equal(torch.cat([y for _, y in batches]), Y)
    return len(counts)


def test_no_sample_is_touched(monkeypatch):
    assert count_samples(monkeypatch) == 0


def test_switched_off_every_sample_is_touched(monkeypatch):
    """Control: the batches are the same, the count is not."""
    monkeypatch.setattr(source, "rows_of", lambda loader: None)
    assert count_samples(monkeypatch) == 23


class MyLoader(DataLoader):
    pass


class MyRows(TensorDataset):
    def __getitem__(self, index):
        return tuple(-tensor for tensor in super().__getitem__(index))


class MyTensor(torch.Tensor):
    pass


@pytest.mark.parametrize(
    "make",
    [
        lambda: MyLoader(ROWS, batch_size=4),
        lambda: DataLoader(MyRows(X, Y), batch_size=4),
        lambda: DataLoader(ROWS, batch_size=None),
        lambda: DataLoader(ROWS, batch_size=None, collate_fn=default_collate),
        lambda: DataLoader(ROWS, batch_size=4, timeout=1),  # refused by torch when it is read
        lambda: DataLoader(ROWS, batch_size=4, num_workers=1),
        lambda: DataLoader(TensorDataset(X, Y.to("meta")), batch_size=4),
        lambda: DataLoader(ROWS, batch_size=4, collate_fn=lambda rows: default_collate(rows)),
        lambda: DataLoader(TensorDataset(X.as_subclass(MyTensor)), batch_size=4),
        lambda: DataLoader(TensorDataset(X.to_sparse()), batch_size=4),
        lambda: DataLoader(list(zip(X, Y, strict=True)), batch_size=4),
    ],
)
def test_everything_else_is_left_to_the_loader(make):
    assert rows_of(make()) is None


def test_what_a_subclass_changes_is_kept():
    batch = next(iter(Feed(DataLoader(MyRows(X, Y), batch_size=4), "cpu")))
    assert batch[1].tolist() == [0, -1, -2, -3]


def test_an_index_out_of_range_is_torch_s_own_error():
    loader = DataLoader(ROWS, batch_sampler=[[0, 23]])
    with pytest.raises(IndexError, match="out of bounds"):
        list(Feed(loader, "cpu"))


def test_a_sampler_that_reuses_its_list_does_no_harm():
    class Reusing:
        def __iter__(self):
            indices = [0, 0]
            for row in range(3):
                indices[:] = [row, row]
                yield indices

    items = list(Feed(DataLoader(ROWS, batch_sampler=Reusing()), "cpu"))
    assert [item.take()[1].tolist() for item in items] == [[0, 0], [1, 1], [2, 2]]
