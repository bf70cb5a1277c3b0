from collections import OrderedDict, UserDict, namedtuple

import numpy as np
import pytest
import torch

from fitkit.data.structure import as_tensor, leaves, map_leaves, to_tensors
from fitkit.errors import DataError

Pair = namedtuple("Pair", "left right")


def test_map_keeps_every_container():
    given = [(1, 2), Pair(3, [4]), OrderedDict(b=5, a=6), UserDict(c=7), None]
    found = map_leaves(lambda leaf: leaf * 10, given)
    assert found == [(10, 20), Pair(30, [40]), OrderedDict(b=50, a=60), UserDict(c=70), None]
    assert [type(item) for item in found] == [type(item) for item in given]
    assert list(found[2]) == ["b", "a"]


def test_map_leaves_the_given_structure_alone():
    given = UserDict(a=1)
    map_leaves(lambda leaf: leaf + 1, given)
    assert given == {"a": 1}


def test_leaves_name_their_path():
    given = ({"image": 1, "mask": None}, [2, Pair(3, 4)])
    assert list(leaves(given)) == [
        ("batch[0]['image']", 1),
        ("batch[1][0]", 2),
        ("batch[1][1][0]", 3),
        ("batch[1][1][1]", 4),
    ]


@pytest.mark.parametrize(
    ("leaf", "value", "dtype"),
    [
        (True, True, torch.bool),
        (3, 3, torch.int64),
        (0.5, 0.5, torch.float32),
        (np.float64(0.5), 0.5, torch.float64),
        (np.int8(-3), -3, torch.int8),
        (np.array([1, 2], dtype=np.uint8), [1, 2], torch.uint8),
        (np.arange(3)[::-1], [2, 1, 0], torch.int64),
        (np.array([1.5, 2.5], dtype=">f4"), [1.5, 2.5], torch.float32),
        (np.zeros((0, 2), dtype=np.float32), [], torch.float32),
    ],
)
def test_numbers_and_arrays_become_tensors(leaf, value, dtype):
    tensor = as_tensor(leaf)
    assert tensor.tolist() == value
    assert tensor.dtype == dtype


def test_arrays_share_memory_and_read_only_ones_do_not():
    array = np.zeros(3, dtype=np.float32)
    shared = as_tensor(array)
    frozen = array.copy()
    frozen.flags.writeable = False
    copied = as_tensor(frozen)  # torch would warn, and warnings are errors here
    array[0] = 1
    copied[0] = 2
    assert shared.tolist() == [1, 0, 0]
    assert frozen.tolist() == [0, 0, 0]


class Picture:
    pass


@pytest.mark.parametrize(
    ("structure", "tokens"),
    [
        ([{"image": Picture()}], ["batch[0]['image']", "test_structure.Picture"]),
        ((torch.zeros(2), ["cat", "dog"]), ["batch[1][0]", "builtins.str"]),
        (np.array(["a"]), ["batch is a numpy.ndarray", "dtype <U1"]),
        ({"x": np.array([None])}, ["batch['x']", "dtype object"]),
        ({"when": np.datetime64("2020-01-01")}, ["batch['when']", "numpy.datetime64"]),
        (b"bytes", ["batch is a builtins.bytes"]),
        ({1, 2}, ["batch is a builtins.set"]),
    ],
)
def test_a_leaf_that_is_no_number_is_named(structure, tokens):
    with pytest.raises(DataError) as caught:
        to_tensors(structure)
    message = str(caught.value)
    assert all(token in message for token in tokens), message
    assert len(message.splitlines()[0]) <= 120
    assert message.splitlines()[-1].startswith("Give numbers:")
