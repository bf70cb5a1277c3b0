"""Gradients across programs: accumulation over batches, and eager steps in between."""

import keras
import pytest
import torch

from fitkit.record import Constants, GradBuffers, Gradients, Program, simplify, trace
from tests.unit.record import steps


class Accumulating:
    """Two programs of one step: the first batch of a window opens it, the second closes it."""

    def __init__(self):
        torch.manual_seed(0)
        self.model = torch.nn.Linear(20, 10)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        self.parameters = list(self.model.parameters())
        self.buffers = GradBuffers()

    def region(self, opens):
        def run(batch):
            if opens:
                self.optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(self.model(batch[0]), batch[1]) / 2
            loss.backward()
            if not opens:
                self.optimizer.step()
            return {"loss": loss.detach()}

        return run

    def record(self, opens):
        gradients = Gradients(self.parameters, buffers=self.buffers)
        graph = trace(
            self.region(opens), steps.batches(1)[0], gradients=gradients, constants=Constants()
        )
        simplify(graph)
        return Program(graph, gradients=gradients)

    def weights(self):
        return [p.detach().clone() for p in self.parameters]


@pytest.fixture
def recorded():
    """A step whose two programs were traced where they occur, and the weights at the start."""
    step = Accumulating()
    data, start = steps.batches(8), step.weights()
    programs = [step.record(opens=True)]
    step.region(opens=True)(data[0])
    programs.append(step.record(opens=False))
    return step, programs, data, start


def _eager_weights(step, data, start):
    _reset(step, start)
    for i, batch in enumerate(data):
        step.region(opens=i % 2 == 0)(batch)
    return step.weights()


def _reset(step, start):
    step.optimizer.zero_grad()
    with torch.no_grad():
        for parameter, value in zip(step.parameters, start, strict=True):
            parameter.copy_(value)


@pytest.mark.parametrize("eager", [(), (0, 1), (2,), (3,), (0, 3, 4)], ids=str)
def test_replays_accumulate_like_eager_with_eager_steps_anywhere(recorded, eager):
    step, programs, data, start = recorded
    expected = _eager_weights(step, data, start)
    _reset(step, start)
    for i, batch in enumerate(data):
        (step.region(opens=i % 2 == 0) if i in eager else programs[i % 2])(batch)
    assert steps.equal(expected, step.weights())


def test_kept_gradients_are_readable_after_the_step(recorded):
    step, programs, data, start = recorded
    _reset(step, start)
    step.region(opens=True)(data[0])
    expected = [p.grad.clone() for p in step.parameters]
    _reset(step, start)
    programs[0](data[0])
    assert steps.equal(expected, [p.grad for p in step.parameters])


def test_gradients_nobody_keeps_are_cleared_not_stale():
    step = steps.keras_step(keras.optimizers.Adam())
    step.run(steps.batches(1)[0])
    assert all(p.grad is not None for p in step.parameters)
    program = steps.record(step)
    program(steps.batches(1)[0])
    assert all(p.grad is None for p in step.parameters)


def test_two_programs_replay_keras_accumulation():
    """Keras asks a tensor whether to update; the host counts, so it knows the answer."""
    every = 3
    optimizer = keras.optimizers.Adam(1e-2, gradient_accumulation_steps=every)
    step = steps.keras_step(optimizer)
    programs = [steps.record(step, branch=updates) for updates in (False, True)]
    assert [p.step.num_branches for p in programs] == [1, 1]
    data, start = steps.batches(7), step.snapshot()
    for batch in data:
        step.run(batch)
    expected = step.snapshot()
    step.restore(start)
    iteration = int(optimizer._iterations.value)
    for i, batch in enumerate(data):
        programs[(iteration + i + 1) % every == 0](batch)
    assert steps.equal(expected, step.snapshot())
