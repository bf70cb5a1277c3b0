from collections import namedtuple

import pytest
import torch

from fitkit.data import batch_size_of, default_unpack, describe
from fitkit.errors import DataError

X, Y, W = torch.zeros(4, 2), torch.ones(4), torch.full((4,), 2.0)


@pytest.mark.parametrize(
    ("batch", "expected"),
    [
        (X, (X, None, None)),
        ((X,), (X, None, None)),
        ([X, Y], (X, Y, None)),
        ((X, Y, W), (X, Y, W)),
        ((X, Y, None), (X, Y, None)),
        (({"a": X}, Y), ({"a": X}, Y, None)),
        (namedtuple("Pair", "image label")(X, Y), (X, Y, None)),
    ],
)
def test_unpack(batch, expected):
    found = default_unpack(batch)
    assert len(found) == 3
    for mine, theirs in zip(found, expected, strict=True):
        assert mine is theirs or mine == theirs


@pytest.mark.parametrize(
    ("batch", "tokens"),
    [
        ((X, Y, W, W), ["tuple of 4 items", "Tensor[4, 2] float32, Tensor[4] float32"]),
        ([], ["list of 0 items"]),
        ({"image": X, "label": Y}, ["dict of 2 items", "'image': Tensor[4, 2] float32"]),
        (None, ["NoneType", "given: None"]),
    ],
)
def test_anything_else_is_shown_with_the_way_out(batch, tokens):
    with pytest.raises(DataError) as caught:
        default_unpack(batch)
    lines = str(caught.value).splitlines()
    assert all(token in str(caught.value) for token in tokens)
    assert len(lines[0]) <= 120
    assert "(inputs, targets)" in lines[0]
    assert "unpack=lambda batch:" in lines[-1]


def test_describe():
    ints = torch.zeros(32, dtype=torch.int64)
    assert describe((torch.zeros(32, 784), ints)) == "(Tensor[32, 784] float32, Tensor[32] int64)"
    assert describe([{"a": (ints,)}, None]) == "[{'a': (Tensor[32] int64,)}, None]"
    assert describe(torch.tensor(1.0)) == "Tensor[] float32"
    assert describe(("text", 3)) == "(str, int)"


def test_batch_size():
    assert batch_size_of(({"scale": torch.tensor(2.0), "x": torch.zeros(5, 3)}, X)) == 5
    with pytest.raises(DataError, match="no tensor with a batch dimension"):
        batch_size_of((torch.tensor(2.0), None))
