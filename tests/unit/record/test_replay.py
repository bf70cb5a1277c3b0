"""A replayed step computes what the step computes: bit by bit when interpreted."""

import keras
import pytest
import torch

from tests.unit.record import steps

# torch's compiler imports torch.jit classes, which warn that they are deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

LR = torch.tensor(1e-2, dtype=torch.float64)
STEPS = {
    "adam": lambda: steps.keras_step(keras.optimizers.Adam(1e-2)),
    "adam bn": lambda: steps.keras_step(
        keras.optimizers.Adam(1e-2), keras.layers.BatchNormalization()
    ),
    "adam dropout": lambda: steps.keras_step(
        keras.optimizers.Adam(1e-2), keras.layers.Dropout(0.3)
    ),
    "adamw cosine": lambda: steps.keras_step(
        keras.optimizers.AdamW(keras.optimizers.schedules.CosineDecay(0.01, 100))
    ),
    "global clip": lambda: steps.keras_step(keras.optimizers.Adam(1e-2, global_clipnorm=0.1)),
    "rmsprop": lambda: steps.keras_step(keras.optimizers.RMSprop(1e-2)),
    "torch fused adam": lambda: steps.torch_step(
        lambda p: torch.optim.Adam(p, lr=LR.clone(), fused=True)
    ),
    "torch sgd": lambda: steps.torch_step(lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)),
}


def _trajectories(step, program, num=8):
    data, start = steps.batches(num), step.snapshot()
    torch.manual_seed(1)
    eager = [step.run(batch) for batch in data]
    after_eager = step.snapshot()
    step.restore(start)
    torch.manual_seed(1)
    replayed = [program(batch) for batch in data]
    return (eager, after_eager), (replayed, step.snapshot())


@pytest.mark.parametrize("name", STEPS)
def test_interpret_is_bit_exact(name):
    step = STEPS[name]()
    program = steps.record(step)
    (eager, state), (replayed, replayed_state) = _trajectories(step, program)
    assert steps.equal(state, replayed_state)
    for ours, theirs in zip(replayed, eager, strict=True):
        assert ours.keys() == theirs.keys()
        assert steps.equal(list(ours.values()), list(theirs.values()))


def test_sgd_of_keras_differs_by_the_rewritten_alpha_only():
    step = steps.keras_step(keras.optimizers.SGD(0.1, momentum=0.9))
    (_, state), (_, replayed) = _trajectories(step, steps.record(step))
    assert steps.distance(state, replayed) < 1e-6


@pytest.mark.parametrize("name", ["adam", "adam bn", "adam dropout", "torch fused adam"])
def test_inductor_is_equal_to_rounding(name):
    step = STEPS[name]()
    program = steps.record(step)
    before = step.snapshot()
    program.compile("inductor", steps.batches(1)[0])
    assert steps.equal(before, step.snapshot())
    (eager, state), (replayed, replayed_state) = _trajectories(step, program)
    assert steps.distance(state, replayed_state) < 1e-4
    assert steps.distance([e["loss"] for e in eager], [r["loss"] for r in replayed]) < 1e-5


@pytest.mark.parametrize("name", ["adam bn", "adam dropout", "torch fused adam"])
def test_tracing_changes_nothing(name):
    step = STEPS[name]()
    before, random_state = step.snapshot(), torch.get_rng_state()
    gradients = [p.grad for p in step.parameters]
    steps.record(step)
    assert steps.equal(before, step.snapshot())
    assert torch.equal(random_state, torch.get_rng_state())
    assert all(p.grad is g for p, g in zip(step.parameters, gradients, strict=True))


@pytest.mark.parametrize("backend", ["interpret", "inductor"])
def test_published_results_are_not_overwritten(backend):
    step = STEPS["adam"]()
    program = steps.record(step)
    data = steps.batches(2)
    program.compile(backend, data[0])
    first = program(data[0])
    copies = {name: value.clone() for name, value in first.items()}
    program(data[1])
    assert all(torch.equal(first[name], copies[name]) for name in first)


def test_values_assigned_between_replays_are_seen():
    optimizer = keras.optimizers.Adam(1e-2)
    step = steps.keras_step(optimizer)
    program = steps.record(step)
    weights = [p.detach().clone() for p in step.parameters]
    optimizer.learning_rate = 0.0
    program(steps.batches(1)[0])
    assert steps.equal(weights, [p.detach() for p in step.parameters])
