import numpy as np
import pytest
import torch

from fitkit.data import TensorLoader, placement
from fitkit.errors import ConfigError, DataError

X = np.arange(20, dtype=np.float32).reshape(10, 2)
Y = torch.arange(10)


def order(loader):
    return [row for _, y in loader for row in y.tolist()]


def test_batches_in_order():
    batches = list(TensorLoader(X, Y, batch_size=4))
    assert [y.tolist() for _, y in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert batches[2][0].tolist() == [[16, 17], [18, 19]]
    assert type(batches[0]) is tuple


@pytest.mark.parametrize(
    ("batch_size", "drop_last", "sizes"),
    [
        (4, False, [4, 4, 2]),
        (4, True, [4, 4]),
        (5, True, [5, 5]),
        (10, False, [10]),
        (99, False, [10]),
        (99, True, []),
    ],
)
def test_sizes(batch_size, drop_last, sizes):
    loader = TensorLoader(X, Y, batch_size=batch_size, drop_last=drop_last)
    assert [gather.batch_size for gather in loader.gathers()] == sizes
    assert len(loader) == len(sizes)


def test_nested_arrays_keep_their_structure():
    loader = TensorLoader({"a": X, "b": (X, Y)}, Y, batch_size=3)
    inputs, y = next(iter(loader))
    assert inputs["a"].tolist() == X[:3].tolist()
    assert inputs["b"][1].tolist() == y.tolist() == [0, 1, 2]


def test_the_order_is_a_function_of_seed_and_epoch():
    def draw(seed, epoch):
        loader = TensorLoader(X, Y, batch_size=3, shuffle=True, seed=seed)
        loader.set_epoch(epoch)
        return order(loader)

    orders = {(seed, epoch): draw(seed, epoch) for seed in range(3) for epoch in range(3)}
    assert all(draw(*key) == found for key, found in orders.items())
    assert all(sorted(found) == list(range(10)) for found in orders.values())
    assert len({tuple(found) for found in orders.values()}) == 9  # seed + epoch would give 5


def test_plain_iteration_advances_the_epoch_until_it_is_set():
    loader, known = (TensorLoader(X, Y, shuffle=True, seed=7) for _ in range(2))
    found = [order(loader) for _ in range(3)]
    expected = []
    for epoch in range(3):
        known.set_epoch(epoch)
        expected.append(order(known))
    assert found == expected
    loader.set_epoch(1)
    assert [order(loader), order(loader)] == [expected[1], expected[1]]


def test_the_epoch_is_taken_when_the_iteration_begins():
    loader = TensorLoader(X, Y, batch_size=2, shuffle=True)
    begun = iter(loader)
    loader.set_epoch(5)
    later = order(loader)
    assert [row for _, y in begun for row in y.tolist()] != later
    loader.set_epoch(0)
    assert order(loader) != later


def test_global_random_state_is_not_touched():
    torch.manual_seed(0)
    np.random.seed(0)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    order(TensorLoader(X, Y, shuffle=True))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()


def test_rows_of_all_arrays_stay_together():
    loader = TensorLoader(X, Y, batch_size=3, shuffle=True)
    for x, y in loader:
        assert torch.equal(x[:, 0], 2.0 * y)


def test_a_batch_is_a_copy_and_the_arrays_are_not():
    array = X.copy()
    loader = TensorLoader(array, batch_size=2)
    (batch,) = next(iter(loader))
    batch.zero_()
    array[0] = 99
    assert next(iter(loader))[0].tolist() == [[99, 99], [2, 3]]


def test_moves_to_the_device_that_asks_only_if_it_fits(monkeypatch):
    meta = torch.device("meta")  # a second device every machine has
    needed = X.nbytes + Y.nbytes
    for free, device in [(2 * needed, "meta"), (2 * needed - 1, "cpu")]:
        monkeypatch.setattr(placement, "free_bytes", lambda _, free=free: free)
        loader = TensorLoader(X, Y).to(meta)
        gather = next(loader.gathers())
        assert loader.device.type == gather.index.device.type == device
        assert gather.arrays[0].device.type == gather.take()[1].device.type == device


def test_asks_for_free_memory_once_per_device(monkeypatch):
    asked = []
    monkeypatch.setattr(placement, "free_bytes", lambda device: asked.append(device) or 0)
    loader = TensorLoader(X, Y)
    for _ in range(3):
        loader.to("meta")
    assert asked == [torch.device("meta")]


def test_a_given_device_stays():
    assert TensorLoader(X, Y, device="cpu").to("meta").device.type == "cpu"
    assert TensorLoader(X, Y, device="meta").to("cpu").device.type == "meta"


@pytest.mark.parametrize(
    ("arguments", "options", "tokens"),
    [
        ((), {}, ["no arrays"]),
        ((X, Y[:9]), {}, ["arrays[0]: [10, 2]", "arrays[1]: [9]"]),
        ((X, {"weight": torch.tensor(1.0)}), {}, ["arrays[1]['weight']: []"]),
        (([[1.0, 2.0], [3.0, 4.0]],), {}, ["arrays[0][1][0]: []", "np.asarray(rows)"]),
        ((X,), {"batch_size": 0}, ["batch_size=0", "at least 1"]),
        ((X,), {"batch_size": 2.0}, ["batch_size=2.0", "float"]),
        ((X,), {"batch_size": True}, ["batch_size=True", "bool"]),
        ((X,), {"seed": -1}, ["seed=-1", "at least 0"]),
    ],
)
def test_bad_arguments(arguments, options, tokens):
    with pytest.raises(ConfigError) as caught:
        TensorLoader(*arguments, **options)
    message = str(caught.value)
    assert all(token in message for token in tokens), message
    assert len(message.splitlines()[0]) <= 120
    assert message.splitlines()[-1].startswith("Give ")


def test_an_array_without_numbers():
    with pytest.raises(DataError, match=r"arrays\[1\] is a numpy.ndarray"):
        TensorLoader(X, np.array(["a"] * 10))
