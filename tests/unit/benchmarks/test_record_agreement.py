"""How close a replay is to the eager step, and whether a difference is a turned tie."""

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from benchmarks.record_agreement import EVERY, Agreement, agreement, summary, variables
from benchmarks.record_cases import fitkit_loop
from benchmarks.record_reference import Reference
from fitkit import Record
from fitkit.record.step_graph import StepGraph

aten = torch.ops.aten
TINY = 2.0**-30  # lost beside 1 in float32, kept in float64


def reference(function, x, *, seed=0):
    """Run a step that changes a weight, 1 at first: by eager's operations, and in float64."""
    weight = torch.ones(x.shape)
    graph = make_fx(function)(x, weight.clone())
    made = Reference(
        StepGraph(graph, 1, [weight], set(), pytree.tree_structure([0])), [x], "interpret"
    )
    torch.manual_seed(seed)
    eager = made.run("eager", [x])
    weight.fill_(1.0)
    torch.manual_seed(seed)
    return eager, made.run_float64([x])


def relu_step(x, weight):
    value = aten.relu(weight + x - 1)
    weight.add_(aten.threshold_backward(torch.ones_like(value), value, 0))
    return (value.sum(),)


def pool_step(x, weight):
    value, indices = aten.max_pool2d_with_indices(weight + x, [2, 2], [2, 2])
    ones = torch.ones_like(value)
    lengths = ([2, 2], [2, 2], [0, 0], [1, 1], False)
    weight.add_(aten.max_pool2d_with_indices_backward(ones, weight + x, *lengths, indices))
    return (value.sum(),)


def dropout_step(x, weight):
    weight.mul_(torch.empty_like(x).bernoulli_(0.5))
    return (weight.sum(),)


@pytest.mark.parametrize(
    ("step", "shape", "place"), [(relu_step, (4,), 0), (pool_step, (1, 1, 2, 2), (0, 0, 1, 1))]
)
def test_a_tie_that_rounding_turns_is_a_branch_of_its_own(step, shape, place):
    for value, same in ((TINY, False), (0.5, True)):
        x = torch.zeros(shape)
        x[place] = value
        eager, exact = reference(step, x)
        assert eager.same_branches(exact) is same
        assert torch.equal(eager.state[0].double(), exact.state[0]) is same
        assert len(eager.branches) == len(exact.branches) == 1
        assert exact.state[0].dtype == torch.float64


def test_the_step_in_float64_draws_the_random_numbers_of_the_float32_step():
    eager, exact = reference(dropout_step, torch.zeros(64), seed=3)
    assert torch.equal(eager.state[0].double(), exact.state[0])
    assert 0 < eager.state[0].sum() < 64


def test_interpreted_steps_equal_the_eager_ones_which_are_a_rounding_off_float64():
    found = agreement("MLP", "interpret", steps=4 * EVERY + 1)
    shown = {"points": 1, "only rounding": 0, "branches shown": 1}
    exact = {"weights": 0.0, "momentum": 0.0, "velocity": 0.0}
    assert {key: found[key] for key in (*shown, *exact)} == {**shown, **exact}
    rounding = found["eager and float64"]
    assert rounding == found["replay and float64"]
    assert all(1e-9 < rounding[kind]["median"] < 1e-3 for kind in exact)


class Wrong(Agreement):
    """Compares with a replay that has moved a weight too far."""

    def on_batch_end(self, state):
        if self.compares:
            variables(self.loop)["weights"][0].data += 0.01
        super().on_batch_end(state)


def test_a_wrong_replay_is_told_from_a_turned_tie_and_the_run_goes_on_as_eager():
    record = Record("interpret")
    wrong, right = Wrong(record), fitkit_loop("MLP", 20)
    loop = fitkit_loop("MLP", 20, record, wrong)
    for each in (loop, right):
        each.fit(max_steps=4 * EVERY + 1)
    assert wrong.num_points > 0
    assert min(error["weights"] for error in wrong.errors["replay", "eager"]) > 1
    assert not any(wrong.turned["replay", "eager"])
    assert wrong.num_shown == 0
    pairs = zip(variables(loop)["weights"], variables(right)["weights"], strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in pairs)


def test_the_summary_names_the_maximum_with_and_without_turned_ties():
    errors = [dict.fromkeys(("weights", "momentum", "velocity"), value) for value in (1, 5, 2)]
    found = summary(errors, [False, True, False])
    assert found["turned"] == 1
    assert found["momentum"] == {"median": 2, "max": 5, "max, none turned": 2}
    assert summary(errors, [True] * 3)["weights"]["max, none turned"] is None
