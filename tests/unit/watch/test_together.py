import pytest
import torch

from fitkit.watch import together
from fitkit.watch.together import Together


@pytest.fixture
def looks(monkeypatch):
    """What was looked at; ten numbers are enough."""
    monkeypatch.setattr(together, "_ENOUGH", 10)
    return []


def looking(looks):
    return Together(
        lambda *parts: looks.append([getattr(p, "tolist", lambda p=p: p)() for p in parts])
    )


def test_small_batches_are_joined_in_their_order(looks):
    batches = looking(looks)
    for k in range(7):
        batches.add(torch.tensor([[k, k]]), torch.tensor([k]))
    assert looks == [[[[0, 0], [1, 1], [2, 2], [3, 3]], [0, 1, 2, 3]]]
    batches.finish()
    assert looks[1:] == [[[[4, 4], [5, 5], [6, 6]], [4, 5, 6]]]
    batches.finish()
    assert len(looks) == 2


def test_memory_may_be_written_to_again(looks):
    batches, memory = looking(looks), torch.zeros(2)
    for k in range(3):
        batches.add(memory.fill_(k))
    batches.finish()
    assert looks == [[[0, 0, 1, 1, 2, 2]]]


def test_a_large_batch_is_looked_at_alone_without_a_copy(looks):
    seen, large = [], torch.zeros(11)
    Together(seen.append).add(large)
    assert seen[0] is large


@pytest.mark.parametrize(
    "other", [torch.zeros(1, 3), torch.zeros(2, dtype=torch.int64), torch.tensor(1.0), None, "text"]
)
def test_batches_of_another_kind_are_not_joined(looks, other):
    batches = looking(looks)
    batches.add(torch.ones(2))
    batches.add(other)
    batches.add(torch.ones(2))
    batches.finish()
    told = other.tolist() if isinstance(other, torch.Tensor) else other
    assert looks == [[[1, 1]], [told], [[1, 1]]]


def test_nothing_keeps_a_graph(looks):
    batches = Together(looks.append)
    batches.add(torch.ones(2, requires_grad=True) * 2)
    batches.finish()
    assert not looks[0].requires_grad
