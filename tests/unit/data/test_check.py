import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from fitkit.data import Feed, TensorLoader, check_loader
from fitkit.errors import DataError

X = torch.zeros(10, 1)
ROWS = TensorDataset(X)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(X)


@pytest.mark.parametrize(
    ("loader", "tokens"),
    [
        (ROWS, ["a TensorDataset", "DataLoader(TensorDataset(...), batch_size=32)"]),
        (Stream(), ["a Stream", "batch_size=None"]),
        (DataLoader, ["the class DataLoader", "DataLoader(...)"]),
        ("train", ["a str", "Give a TensorLoader"]),
        (X, ["a Tensor", "TensorLoader(x, y"]),
        (X.numpy(), ["a ndarray", "TensorLoader(x, y"]),
        ({"a": [X]}, ["a dict", "Give a TensorLoader"]),
        ([TensorLoader(X), TensorLoader(X)], ["a list", 'val_loader={"a": ..., "b": ...}']),
        ((DataLoader(ROWS),), ["a tuple", 'val_loader={"a": ..., "b": ...}']),
        (3, ["an int", "Give a TensorLoader"]),
        (None, ["a NoneType", "Give a TensorLoader"]),
    ],
)
def test_what_is_no_loader_is_refused(loader, tokens):
    with pytest.raises(TypeError) as caught:
        check_loader(loader, "val_loader['b']")
    lines = str(caught.value).splitlines()
    assert all(token in str(caught.value) for token in ["val_loader['b']", *tokens])
    assert len(lines[0]) <= 120
    assert lines[-1].startswith(("Give", "Wrap"))


@pytest.mark.parametrize(
    "loader",
    [
        TensorLoader(X),
        DataLoader(ROWS),
        DataLoader(Stream()),
        [X],
        (batch for batch in [X]),
    ],
)
def test_a_loader_is_accepted_and_nothing_is_read(loader):
    check_loader(loader, "train_loader")
    assert len(list(Feed(loader, "cpu"))) > 0


EMPTY = [
    (DataLoader(ROWS, batch_size=16, drop_last=True), ["=10", "batch_size=16", "drop_last=True"]),
    (TensorLoader(X, batch_size=16, drop_last=True), ["=10", "batch_size=16", "drop_last=True"]),
    ([], ["list: len=0"]),
    (TensorLoader(X[:0]), ["=0", "batch_size=32", "drop_last=False"]),
    (DataLoader(TensorDataset(X[:0])), ["=0", "batch_size=1", "drop_last=False"]),
]


@pytest.mark.parametrize(("loader", "tokens"), EMPTY)
@pytest.mark.parametrize("when", ["checked", "read"])
def test_an_empty_loader_is_told_with_its_numbers(loader, tokens, when):
    with pytest.raises(DataError) as caught:
        check_loader(loader, "train_loader") if when == "checked" else list(Feed(loader, "cpu"))
    message = str(caught.value)
    assert all(token in message for token in ["len", "gave no batches", *tokens]), message
    assert message.splitlines()[-1].startswith("Give it data")


def test_an_empty_iterable_without_length_is_told_at_the_first_fetch():
    class Nothing:
        def __iter__(self):
            return iter(())

    check_loader(Nothing(), "train_loader")
    with pytest.raises(DataError, match=r"val_loader gave no batches(.|\n)*length is not known"):
        list(Feed(Nothing(), "cpu", name="val_loader"))


@pytest.mark.parametrize(
    "loader", [(batch for batch in [X, X]), iter([X, X]), zip([X, X], [X, X], strict=True)]
)
def test_the_second_pass_over_a_one_shot_loader_is_told(loader):
    assert len(list(Feed(loader, "cpu"))) == 2
    check_loader(loader, "train_loader")
    with pytest.raises(DataError) as caught:
        list(Feed(loader, "cpu", name="train_loader"))
    lines = str(caught.value).splitlines()
    assert all(token in lines[0] for token in ["train_loader", "one-shot", type(loader).__name__])
    assert len(lines[0]) <= 120
    assert lines[-1].startswith("Give something that can be read again")


def test_a_one_shot_loader_with_batches_left_goes_on():
    loader = (torch.tensor([i]) for i in range(4))
    first = iter(Feed(loader, "cpu"))
    assert [int(next(first)), int(next(first))] == [0, 1]
    assert [int(batch) for batch in Feed(loader, "cpu")] == [2, 3]
