"""Logged values are added up on the device and read once."""

import pytest
import torch

from fitkit import Callback, Metrics, Phase, State, TensorLoader
from fitkit.errors import ConfigError
from fitkit.loop.logs import LogBuffer
from tests.unit.loop.helpers import loader, make_loop


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


class Counts(Callback):
    """Logs the batch index in every batch, and how many batches there were after the last."""

    def on_batch_end(self, state):
        state.log("index", torch.tensor(float(state.batch_index)))

    def on_pass_end(self, state):
        state.log("batches", torch.tensor(state.batch_index + 1.0), reduce="last")


def loop_with(callback, *, metrics):
    """A loop with `callback` before Metrics, after it, or without one."""
    loop = make_loop(val=loader(3))
    standard = next(each for each in loop.callbacks if isinstance(each, Metrics))
    if metrics != "before":
        loop.detach(standard)
    loop.attach(callback, *([standard] if metrics == "after" else []))
    return loop


@pytest.mark.parametrize("metrics", ["before", "after", "none"])
def test_what_is_logged_reaches_the_logs_with_any_metrics_or_none(metrics):
    loop = loop_with(Counts(), metrics=metrics)
    history = loop.fit(epochs=2)
    assert history["index"] == [1.5, 1.5]
    assert history["val_index"] == [1.0, 1.0]
    assert (history["batches"], history["val_batches"]) == ([4.0, 4.0], [3.0, 3.0])
    assert loop.evaluate(loader(2)).items() >= {("index", 0.5), ("batches", 2.0)}


def test_that_the_delivery_by_the_loop_is_what_brings_them(monkeypatch):
    monkeypatch.setattr(State, "deliver_logs", lambda state: None)
    assert "index" not in loop_with(Counts(), metrics="none").fit(epochs=1)


def test_a_pass_is_read_once_unless_something_is_logged_after_metrics(monkeypatch):
    reads, read = [], LogBuffer.read
    monkeypatch.setattr(LogBuffer, "read", lambda buffer: reads.append(1) or read(buffer))
    make_loop(val=loader(3)).fit(epochs=2)
    assert len(reads) == 4  # training and validation, twice
    reads.clear()
    loop_with(Counts(), metrics="before").fit(epochs=2)
    assert len(reads) == 8


def test_a_value_of_the_hosts_own_is_not_overwritten_by_an_empty_delivery():
    class Doubles(Callback):
        def on_pass_end(self, state):
            state.logs[f"{state.prefix}loss"] *= 2

    plain, doubled = make_loop().fit(epochs=1), make_loop(Doubles()).fit(epochs=1)
    assert doubled["loss"] == [2 * plain["loss"][0]]


def test_a_predict_pass_has_no_logs():
    loop, seen = make_loop(Counts()), []

    class Look(Callback):
        phases = frozenset({Phase.PREDICT})

        def on_batch_end(self, state):
            seen.append(float(state.step_values["index"]))

    loop.attach(Look()).predict(TensorLoader(torch.ones(4, 1), batch_size=2))
    assert seen == [0.0, 1.0]
    assert loop.state.logs == {}
