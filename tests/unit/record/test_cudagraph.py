"""The logic around capturing, on a device that plays a graph back by running it again."""

from contextlib import contextmanager

import keras
import pytest
import torch

from fitkit.record.backends.cudagraph import cudagraph
from fitkit.record.backends.interpret import interpret
from tests.unit.record import steps


class Replayer:
    """A device whose launches rerun the captured work into the same output tensors."""

    def __init__(self):
        self.warm_ups = 0
        self.launches = 0

    def warm_up(self, work):
        self.warm_ups += 1
        work()
        work()

    def capture(self, work):
        outputs = [o.clone() for o in work()]

        def launch():
            self.launches += 1
            for own, new in zip(outputs, work(), strict=True):
                own.copy_(new)

        return launch, outputs

    @contextmanager
    def random_state_kept(self):
        state = torch.get_rng_state()
        yield
        torch.set_rng_state(state)


@pytest.fixture
def captured():
    """A step with dropout, its program, and the same program captured."""
    step = steps.keras_step(keras.optimizers.Adam(1e-2), keras.layers.Dropout(0.3))
    program = steps.record(step)
    before, random_state = step.snapshot(), torch.get_rng_state()
    device = Replayer()
    run = cudagraph(interpret(program.step), program.step, steps.batches(1)[0], device=device)
    assert device.warm_ups == 1
    assert steps.equal(before, step.snapshot())
    assert torch.equal(random_state, torch.get_rng_state())
    return step, run


def test_launches_compute_what_eager_computes(captured):
    step, run = captured
    data, start = steps.batches(5), step.snapshot()
    torch.manual_seed(1)
    losses = [step.run(batch)["loss"] for batch in data]
    expected = step.snapshot()
    step.restore(start)
    torch.manual_seed(1)
    with torch.no_grad():
        replayed = [run(batch)[0] for batch in data]
    assert steps.equal(expected, step.snapshot())
    assert steps.equal(losses, replayed)


def test_the_batch_given_is_not_kept(captured):
    _, run = captured
    x, y = steps.batches(1)[0]
    with torch.no_grad():
        first = run((x, y))
        assert torch.equal(first[0], first[0])
    assert not any(t.data_ptr() == x.data_ptr() for t in first)


def test_cuda_is_not_touched_before_it_is_used():
    assert not torch.cuda.is_initialized()
