"""Compiled sums over many rows round as eager's do."""

import pytest
import torch

from fitkit.record import trace
from fitkit.record.backends.inductor import inductor
from fitkit.record.passes import long_sums

# torch's compiler imports torch.jit classes, which warn that they are deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

SHAPE = (32, 8, 8, 16)


def relative_error(reduce, x):
    step = trace(lambda batch: [reduce(batch[0])], (x,))
    (compiled,) = inductor(step, [x])([x])
    exact = reduce(x.double())
    return float(((compiled.double() - exact) / exact).abs().max())


REDUCTIONS = {
    "mean": lambda x: x.mean((0, 1, 2)),
    "sum": lambda x: x.sum((0, 1, 2)),
    "sum of all": lambda x: x.sum((0, 1, 2, 3)),
    "kept": lambda x: x.mean((0, 1, 2), keepdim=True),
    "not the first": lambda x: x.sum((1, 2, 3)),
    "negative": lambda x: x.mean((-4, -3, -2)),
}


@pytest.mark.parametrize("name", REDUCTIONS)
def test_a_long_sum_rounds_as_little_as_eager(name):
    torch.manual_seed(0)
    x = torch.rand(SHAPE) ** 2
    assert relative_error(REDUCTIONS[name], x) < 3e-7


def test_without_stages_it_does_not(monkeypatch):
    torch.manual_seed(0)
    x = torch.rand(SHAPE) ** 2
    monkeypatch.setattr("fitkit.record.backends.inductor.LONG_SUMS", {})
    assert relative_error(REDUCTIONS["mean"], x) > 6e-7


@pytest.mark.parametrize(
    ("x", "dims"),
    [
        (torch.rand(64, 8), (0, 1)[:1]),  # one dimension
        (torch.rand(4, 8, 2), (0, 1)),  # short
        (torch.rand(SHAPE).bfloat16(), (0, 1, 2)),  # would be rounded in between
        (torch.ones(SHAPE, dtype=torch.int64), (0, 1, 2)),
        (torch.rand(()), ()),
    ],
)
def test_other_sums_stay_as_they_are(x, dims):
    assert long_sums._sum(x, dims) is NotImplemented


@pytest.mark.parametrize("dims", [(0, 2, 3), (0, 1, 2, 3), (1, 2)])
def test_more_rows_than_a_long_sum_has_are_two_stages_as_well(dims):
    x = torch.rand(2 * long_sums._LONG, 4, 2, 2)
    reduced = trace(lambda batch: [batch[0].sum(dims)], (x,))
    (compiled,) = inductor(reduced, [x])([x])
    torch.testing.assert_close(compiled, x.sum(dims))


def test_a_mean_over_many_rows_of_nothing_is_empty():
    x = torch.rand(32, 16, 0)
    step = trace(lambda batch: [batch[0].mean((0, 1))], (x,))
    (compiled,) = inductor(step, [x])([x])
    assert compiled.shape == (0,)
