import math

import pytest
import torch

from fitkit.loop.packed import Packed
from fitkit.watch.step_points import num_complete, points_of

CPU = torch.device("cpu")


def batch(x, values, *, rates=(), samples=1, ends=True, **beside):
    copies = torch.tensor([*values.values()], dtype=torch.float32)
    beside = {name: torch.tensor([float(value)]) for name, value in beside.items()}
    return Packed((*values,), copies, beside), samples, ends, x, float(x), rates


def column(batches, name, rates=()):
    """{x: value} of all points."""
    return {
        x: row[points.names.index(name)]
        for points in points_of(batches, rates, CPU)
        if name in points.names
        for x, row in zip(points.xs, points.values.tolist(), strict=True)
    }


def test_no_batch_is_no_point():
    assert points_of([], ["lr"], CPU) == []


def test_where_nothing_was_logged_the_rates_are_drawn():
    batches = [batch(0, {}), batch(1, {})]
    assert points_of(batches, [], CPU) == []
    rates = [(*each[:-1], (0.5,)) for each in batches]
    assert column(rates, "lr", ["lr"]) == {0: 0.5, 1: 0.5}


def test_updates_of_the_same_names_are_one_table():
    batches = [batch(x, {"a": x, "b": x * 2}) for x in range(5)]
    [points] = points_of(batches, [], CPU)
    assert points.names == ("a", "b")
    assert [*points.xs] == [0, 1, 2, 3, 4]
    assert [*points.walls_s] == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert points.values.tolist() == [[x, 2 * x] for x in range(5)]


def test_names_that_come_and_go():
    batches = [
        batch(0, {"a": 3, "b": 4}, rates=(0.25, 1.0)),
        batch(1, {"a": 1.5, "b": 5}, rates=(torch.tensor(0.5), 2.0)),
        batch(2, {"a": 1, "c": 9}, rates=(torch.tensor(0.5).double(), 3.0)),
        batch(3, {"a": 7}, rates=(0.5, 3.0)),
    ]
    first, second, third = points_of(batches, ("lr", "lr_d"), CPU)
    assert (first.names, [*first.xs]) == (("a", "b", "lr", "lr_d"), [0, 1])
    assert first.values.tolist() == [[3, 4, 0.25, 1], [1.5, 5, 0.5, 2]]
    assert (second.names, second.values.tolist()) == (("a", "c", "lr", "lr_d"), [[1, 9, 0.5, 3]])
    assert (third.names, third.values.tolist()) == (("a", "lr", "lr_d"), [[7, 0.5, 3]])


def test_a_rate_of_the_host_keeps_its_digits():
    assert column([batch(0, {"a": 1}, rates=(0.1,))], "lr", ["lr"]) == {0: 0.1}


def test_what_was_logged_beside_the_step_counts_and_goes_before_it():
    given = {"a": 1, "b": 2}
    batches = [batch(0, given), batch(1, given, b=3, c=4), batch(2, {}, c=5)]
    assert column(batches, "a") == {0: 1, 1: 1}
    assert column(batches, "b") == {0: 2, 1: 3}
    assert column(batches, "c") == {1: 4, 2: 5}


def test_the_batches_of_an_update_are_their_mean_by_samples():
    batches = [
        batch(0, {"a": 1, "gone": 4}, samples=4, ends=False, rates=(0.5,)),
        batch(0, {"a": 4, "once": 7}, samples=2, rates=(0.5,)),
        batch(1, {"a": math.nan}, samples=4, ends=False, rates=(0.25,)),
        batch(1, {"a": 4, "once": 8}, samples=4, rates=(0.25,)),
        batch(2, {"a": 1 / 3}, samples=3, rates=(0.1,)),
    ]
    assert column(batches, "once", ["lr"]) == {0: 7, 1: 8}
    assert column(batches, "gone", ["lr"]) == {0: 4}
    assert column(batches, "lr", ["lr"]) == {0: 0.5, 1: 0.25, 2: pytest.approx(0.1, rel=1e-15)}
    found = column(batches, "a", ["lr"])
    assert found == {0: 2, 1: pytest.approx(math.nan, nan_ok=True), 2: pytest.approx(1 / 3)}


def test_only_what_is_complete_is_counted():
    batches = [batch(0, {"a": 1}), batch(1, {"a": 1}, ends=False), batch(1, {"a": 1}, ends=False)]
    assert num_complete(batches) == 1
    assert num_complete(batches[1:]) == 0
    assert num_complete([]) == 0
