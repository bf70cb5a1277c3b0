"""Each graph pass: what it removes, what it must keep, and that results stay the same."""

import torch

from fitkit.record import Constants, StepGraph, trace
from fitkit.record.passes import (
    drop_detach,
    drop_unread,
    fold_constants,
    functionalize,
    realize_scalars,
    simplify,
)
from fitkit.record.passes.writes import written_placeholders

X = torch.randn(4, 3)
ATEN = torch.ops.aten


def _targets(step: StepGraph) -> list[str]:
    return [str(n.target) for n in step.module.graph.nodes if n.op == "call_function"]


def _run(step: StepGraph, x=X):
    with torch.no_grad():
        return step.module(*step.tensors([x]))


def test_lift_gives_each_outside_tensor_one_placeholder():
    weight = torch.randn(3)
    step = trace(lambda b: [b[0] * weight + weight], (X,))
    assert step.state == [weight]
    assert step.state[0] is weight
    assert len(step.placeholders) == 2
    assert torch.equal(_run(step)[0], X * weight + weight)


def test_lift_works_without_inputs():
    weight = torch.randn(3)
    step = trace(lambda _: [weight * 2], ())
    with torch.no_grad():
        assert torch.equal(step.module(*step.tensors([]))[0], weight * 2)


def test_number_tensors_are_constants_and_shared():
    constants = Constants()
    steps = [
        trace(lambda b: [b[0] * torch.as_tensor(2.0)], (X,), constants=constants) for _ in "ab"
    ]
    assert steps[0].state[0] is steps[1].state[0]
    assert steps[0].constants == {steps[0].state[0]}


def test_detach_disappears():
    step = trace(lambda b: [b[0].detach() * 2], (X,))
    drop_detach(step)
    assert _targets(step) == ["aten.mul.Tensor"]


def test_constants_are_folded_and_state_is_not():
    live = torch.tensor(3.0)
    step = trace(lambda b: [b[0] * (torch.as_tensor(2.0) + 1) * (live + 1)], (X,))
    before = _run(step)[0]
    fold_constants(step)
    drop_unread(step)
    assert _targets(step).count("aten.add.Tensor") == 1
    assert torch.equal(_run(step)[0], before)
    live.fill_(0.0)
    assert torch.equal(_run(step)[0], X * 3)


def test_values_written_later_or_random_are_not_folded():
    def region(batch):
        total = torch.zeros(3)
        total.add_(batch[0].sum(0))
        return [total, torch.rand(3)]

    step = trace(region, (X,))
    fold_constants(step)
    first, second = _run(step), _run(step)
    assert torch.equal(first[0], second[0])
    assert not torch.equal(first[1], second[1])


def test_published_constants_are_made_anew():
    step = trace(lambda b: [torch.as_tensor(2.0) + 1], (X,))
    fold_constants(step)
    drop_unread(step)
    assert _run(step)[0] is not _run(step)[0]


def test_unread_results_go_but_writes_and_draws_stay():
    total = torch.zeros(3)

    def region(batch):
        batch[0].exp()
        total.view(3).add_(1.0)
        torch.rand(2)
        return [batch[0].sum()]

    step = trace(region, (X,))
    drop_unread(step)
    assert "aten.exp.default" not in _targets(step)
    assert any("add_" in t for t in _targets(step))
    assert any("rand" in t for t in _targets(step))


def test_batch_norm_nobody_reads_moves_its_statistics():
    norm = torch.nn.BatchNorm1d(3)

    def region(batch):
        norm(batch[0])
        return [batch[0].sum()]

    step = trace(region, (X,))
    simplify(step)
    _run(step)
    assert torch.allclose(norm.running_mean, 0.1 * X.mean(0))


def test_state_nobody_reads_is_let_go():
    unread, read = torch.randn(3), torch.randn(3)
    step = trace(lambda b: [b[0] * read, b[0] + unread][:1], (X,))
    drop_unread(step)
    assert len(step.state) == 1
    assert step.state[0] is read


def test_writes_are_found_through_views_and_lists():
    weight, slots, read = torch.zeros(4, 3), [torch.zeros(3), torch.zeros(3)], torch.ones(3)

    def region(batch):
        weight[1:].t().mul_(2.0)
        torch._foreach_add_(slots, [read, read])
        return [batch[0] * read]

    step = trace(region, (X,))
    names = written_placeholders(step.module.graph)
    tensors = [step.tensors([X])[step.placeholders.index(n)] for n in names]
    assert [id(t) for t in tensors] == [id(t) for t in (weight, *slots)]


def test_functional_graphs_write_once_per_tensor_at_the_end():
    count, weight = torch.zeros(()), torch.zeros(3)

    def region(batch):
        count.add_(1)
        weight.add_(batch[0].sum(0) * count)
        count.add_(1)
        return [weight * count]

    step = trace(region, (X,))
    functionalize(step, [X])
    writes = [i for i, t in enumerate(_targets(step)) if t == "aten.copy_.default"]
    assert writes == [len(_targets(step)) - 2, len(_targets(step)) - 1]
    result = _run(step)[0]
    assert torch.equal(result, X.sum(0) * 2)
    assert count == 2
    assert torch.equal(weight, X.sum(0))


def test_scalar_arithmetic_is_stored_once_for_the_loops_that_use_it():
    count = torch.ones(())

    def region(batch):
        rate = 1 - torch.pow(torch.as_tensor(0.9), count)
        result = batch[0] / rate, batch[0] * rate, rate
        count.add_(1)
        return list(result)

    step = trace(region, (X,))
    functionalize(step, [X])
    realize_scalars(step)
    assert len(step.scratch) == 1
    first, second = _run(step), _run(step)
    for published, power in ((first, 1), (second, 2)):
        rate = 1 - torch.pow(torch.as_tensor(0.9), torch.tensor(float(power)))
        for ours, expected in zip(published, (X / rate, X * rate, rate), strict=True):
            assert torch.equal(ours, expected)


def test_scalars_of_the_batch_are_left_to_the_compiler():
    step = trace(lambda b: [b[0] / b[0].sum()], (X,))
    functionalize(step, [X])
    realize_scalars(step)
    assert not step.scratch


def test_the_batch_gather_is_part_of_the_step():
    data = torch.randn(20, 3)
    index = torch.tensor([3, 1])
    step = trace(lambda b: [b[0].index_select(0, b[1]) * 2], (data, index))
    with torch.no_grad():
        assert torch.equal(step.module(data, torch.tensor([0, 7]))[0], data[[0, 7]] * 2)


def test_copies_can_be_edited_apart():
    step = trace(lambda b: [b[0].detach() * 2], (X,))
    other = step.copy()
    drop_detach(other)
    assert len(_targets(step)) == 2
    assert torch.equal(_run(step)[0], _run(other)[0])
