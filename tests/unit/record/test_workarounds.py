"""Steps that Keras writes with a branch on a tensor, recorded without it, equal bit by bit."""

import keras
import pytest
import torch

from fitkit.record import Constants, Gradients, Program, Refused, simplify, trace
from fitkit.record.loss_scale import apply_without_branches
from tests.unit.record import steps


def _scaled_step(apply):
    """A step under dynamic loss scaling; growth after 3 finite steps, so that it is seen."""
    keras.utils.set_random_seed(0)
    inner = keras.optimizers.Adam(1e-2)
    optimizer = keras.optimizers.LossScaleOptimizer(inner, dynamic_growth_steps=3)
    layers = [keras.layers.Dense(32, activation="relu"), keras.layers.Dense(10)]
    model = keras.Sequential([keras.Input((20,)), *layers])
    loss_fn = keras.losses.CategoricalCrossentropy(from_logits=True)
    optimizer.build(model.trainable_variables)

    def run(batch):
        loss = loss_fn(batch[1], model(batch[0], training=True))
        model.zero_grad()
        optimizer.scale_loss(loss).backward()
        weights = model.trainable_weights
        with torch.no_grad():
            apply(optimizer, [w.value.grad for w in weights], weights)
        return {"loss": loss.detach()}

    def state():
        return [v.value for owner in (model, optimizer, inner) for v in owner.variables]

    return steps.Step(run, list(model.parameters()), state)


def _keras_apply(optimizer, gradients, weights):
    optimizer.apply(gradients, weights)


def test_loss_scaling_by_keras_is_refused():
    with pytest.raises(Refused, match="__bool__"):
        steps.record(_scaled_step(_keras_apply))


def test_branch_free_loss_scaling_equals_keras_on_overflows_too():
    eager, ours = _scaled_step(_keras_apply), _scaled_step(apply_without_branches)
    program = steps.record(ours)
    for i, (x, y) in enumerate(steps.batches(12)):
        x[0, 0] = float("inf") if i in (2, 6, 7) else x[0, 0]
        eager.run((x, y))
        program((x, y))
        assert steps.equal(eager.snapshot(), ours.snapshot()), f"step {i}"


def test_a_schedule_with_a_branch_is_replayed_through_a_tensor():
    schedule = keras.optimizers.schedules.CosineDecay(0.01, 20, warmup_target=0.02, warmup_steps=4)
    optimizer = keras.optimizers.AdamW(schedule)
    step = steps.keras_step(optimizer)
    data, start = steps.batches(8), step.snapshot()
    with pytest.raises(Refused, match="__bool__"):
        steps.record(step)
    rate = torch.tensor(0.0)
    optimizer.learning_rate = lambda: rate
    program = steps.record(step)
    optimizer.learning_rate = schedule
    for batch in data:
        step.run(batch)
    expected = step.snapshot()
    step.restore(start)
    for batch in data:
        rate.copy_(schedule(optimizer.iterations.value))
        program(batch)
    assert steps.equal(expected, step.snapshot())
    assert optimizer.get_config()["learning_rate"]["class_name"] == "CosineDecay"


def test_a_schedule_with_a_branch_is_replayed_by_one_program_per_outcome():
    """No host evaluation of the schedule: the host only compares the step count."""
    schedule = keras.optimizers.schedules.CosineDecay(0.01, 20, warmup_target=0.02, warmup_steps=4)
    optimizer = keras.optimizers.Adam(schedule)
    step = steps.keras_step(optimizer)
    programs = [steps.record(step, branch=warm) for warm in (False, True)]
    assert [p.step.num_branches for p in programs] == [1, 1]
    data, start = steps.batches(8), step.snapshot()
    for batch in data:
        step.run(batch)
    expected = step.snapshot()
    step.restore(start)
    for batch in data:
        programs[int(optimizer.iterations.value) < schedule.warmup_steps](batch)
    assert steps.equal(expected, step.snapshot())


@pytest.mark.parametrize("fused", [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD])
def test_a_float64_learning_rate_tensor_equals_the_float(fused):
    rate = torch.tensor(1e-3, dtype=torch.float64)
    by_float = steps.torch_step(lambda p: fused(p, lr=1e-3, fused=True))
    by_tensor = steps.torch_step(lambda p: fused(p, lr=rate, fused=True))
    program = steps.record(by_tensor)
    for batch in steps.batches(5):
        by_float.run(batch)
        program(batch)
    assert steps.equal(by_float.snapshot(), by_tensor.snapshot())
    frozen = [p.detach().clone() for p in by_tensor.parameters]
    rate.fill_(0.0)
    program(steps.batches(1)[0])
    assert steps.equal(frozen, [p.detach() for p in by_tensor.parameters])


def test_a_float_learning_rate_is_frozen_so_the_key_must_hold_it():
    rates = []
    step = steps.torch_step(
        lambda p: rates.append(torch.optim.Adam(p, lr=1e-3, fused=True)) or rates[0]
    )
    gradients = Gradients(step.parameters)
    graph = trace(step.run, steps.batches(1)[0], gradients=gradients, constants=Constants())
    simplify(graph)
    program = Program(graph, gradients=gradients)
    before = [p.detach().clone() for p in step.parameters]
    rates[0].param_groups[0]["lr"] = 0.0
    program(steps.batches(1)[0])
    assert not steps.equal(before, [p.detach() for p in step.parameters])
