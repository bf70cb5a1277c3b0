"""Logged values are added up on the device and read once."""

import pytest
import torch

from fitkit.errors import ConfigError
from fitkit.loop.logs import LogBuffer


def read_after(values, reduce, weights=None, dtype=torch.float32):
    buffer = LogBuffer()
    for value, weight in zip(values, weights or [1] * len(values), strict=True):
        buffer.add("x", torch.tensor(value, dtype=dtype), weight, reduce)
    return buffer.read()["x"]


@pytest.mark.parametrize(
    ("reduce", "expected"), [("mean", 2.0), ("sum", 6.0), ("max", 4.0), ("min", 0.5), ("last", 0.5)]
)
def test_reductions(reduce, expected):
    assert read_after([1.5, 4.0, 0.5], reduce) == expected


def test_mean_is_weighted():
    assert read_after([1.0, 4.0], "mean", weights=[32, 16]) == 2.0


def test_extremes_of_negative_values():
    assert read_after([-3.0, -2.0], "max") == -2.0
    assert read_after([3.0, 2.0], "min") == 2.0


def test_means_are_summed_in_double_precision():
    """Added up in float32, the million ones after 2**24 would all be lost."""
    buffer = LogBuffer()
    buffer.add("x", torch.tensor(2.0**24), reduce="sum")
    for _ in range(1000):
        buffer.add("x", torch.tensor(1.0), reduce="sum")
    assert buffer.read()["x"] == 2**24 + 1000


def test_mean_equals_the_sum_over_samples_to_the_bit():
    losses = torch.rand(500, generator=torch.Generator().manual_seed(0)) * 7
    sizes = [1 + index % 33 for index in range(500)]
    buffer = LogBuffer()
    for loss, size in zip(losses, sizes, strict=True):
        buffer.add("loss", loss, size)
    total = sum(loss * size for loss, size in zip(losses.tolist(), sizes, strict=True))
    assert buffer.read()["loss"] == total / sum(sizes)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.int64, torch.bool])
@pytest.mark.parametrize("reduce", ["mean", "sum", "max", "min", "last"])
def test_any_real_dtype(dtype, reduce):
    assert read_after([1, 1], reduce, dtype=dtype) == (2.0 if reduce == "sum" else 1.0)


def test_reset_keeps_the_accumulators_where_they_are():
    buffer = LogBuffer()
    buffer.add("x", torch.tensor(5.0), reduce="max")
    places = {tensor.data_ptr() for tensor in buffer._totals.values()}
    buffer.reset()
    assert buffer.read() == {}  # nothing was added since
    buffer.add("x", torch.tensor(-1.0), reduce="max")
    assert {tensor.data_ptr() for tensor in buffer._totals.values()} == places
    assert buffer.read() == {"x": -1.0}


def test_names_are_apart():
    buffer = LogBuffer()
    buffer.add("a", torch.tensor(1.0))
    buffer.add("b", torch.tensor(2.0), reduce="last")
    assert buffer.read() == {"a": 1.0, "b": 2.0}


def test_one_name_is_reduced_in_one_way():
    buffer = LogBuffer()
    buffer.add("x", torch.tensor(1.0), reduce="mean")
    with pytest.raises(ConfigError, match=r"'x'.*reduce='max'.*reduce='mean'"):
        buffer.add("x", torch.tensor(1.0), reduce="max")
