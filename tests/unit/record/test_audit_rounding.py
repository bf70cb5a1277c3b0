"""What a compiler rounds differently is no error, unless the program itself is another one."""

import warnings

import keras
import pytest
import torch

from fitkit import Event, FitLoop, Record, TensorLoader, supervised
from fitkit.record import audit
from fitkit.record.backends.shaken import shaken
from fitkit.record.compared import first_difference
from fitkit.record.program import Program

SEED = 7  # of the roundings of the program; the audit's own are others


def compiled_as(monkeypatch, sabotage=lambda step: step, wrap=lambda run: run):
    """Let the backend "inductor" be the same operations with other roundings, and maybe wrong."""
    compile_for_real = Program.compile

    def compiled(self, backend, inputs, *, options=None):
        if backend != "inductor":
            compile_for_real(self, backend, inputs)
            return
        self._run = wrap(shaken(sabotage(self.step.copy()), inputs, seed=SEED))
        self.backend = backend

    monkeypatch.setattr(Program, "compile", compiled)
    monkeypatch.setattr("fitkit.record.recording.is_due", lambda program: True)


def network():
    """A network with a bias that only gets rounding, masks, and statistics."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    return keras.Sequential(
        [
            *(keras.Input((4,)), layers.Dense(16), layers.BatchNormalization()),
            *(layers.ReLU(), layers.Dropout(0.2), layers.Dense(3)),
        ]
    )


def batches():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(64, 4, generator=generator), torch.arange(64) % 3
    return TensorLoader(x + 4 * torch.eye(4)[y], y, batch_size=16)


OPTIMIZERS = {
    "adam": lambda: keras.optimizers.Adam(0.01),
    "sgd": lambda: keras.optimizers.SGD(0.01, momentum=0.9),
}


def run(optimizer="adam", *, scale=1.0):
    """Record a few steps; return the history, and whether a replay was refused.

    Args:
        scale: What the last weights are multiplied with; with 60, all gradients are rounding.
    """
    model, optimizer = network(), OPTIMIZERS[optimizer]()
    model.layers[-1].kernel.assign(model.layers[-1].kernel * 0.1)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    loop = FitLoop(model, batches())
    loop.attach(supervised(loss=loss, optimizer=optimizer)).fit(epochs=6)
    model.layers[-1].kernel.assign(model.layers[-1].kernel * scale)
    watch(model, optimizer)
    record = Record("inductor")
    loop.on(Event.BATCH_BEGIN, when=lambda state: state.batch_index == 2)(
        lambda state: optimizer.learning_rate.assign(0.005)
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loop.attach(record).fit(epochs=2)
    return loop.history, any("differs from the eager step" in str(w.message) for w in caught)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("scale", [1.0, 60.0])
def test_another_rounding_is_accepted(monkeypatch, optimizer, scale):
    compiled_as(monkeypatch)
    history, refused = run(optimizer, scale=scale)
    assert not refused
    assert scale == 1 or optimizer == "sgd" or history["loss"][-1] < 1e-2


def test_without_room_for_rounding_it_is_refused(monkeypatch):
    compiled_as(monkeypatch)
    monkeypatch.setattr(audit, "_SHAKEN_TIMES", 0)
    assert run(scale=60.0)[1]


def stale(*names):
    """Let the program read and write copies of some state instead, as they are now."""

    def sabotage(step):
        for place, tensor in enumerate(step.state):
            if any(tensor is WATCHED[name] for name in names):
                step.state[place] = tensor.detach().clone()
        return step

    return sabotage


WATCHED: dict[str, torch.Tensor] = {}


def watch(model, optimizer):
    norm = model.layers[1]
    WATCHED.update(rate=optimizer.learning_rate.value, mean=norm.moving_mean.value)
    WATCHED.update(weight=model.layers[0].kernel.value)


def draws_one_more(run):
    def wrong(inputs):
        torch.rand(())
        return run(inputs)

    return wrong


def moves(run):
    def wrong(inputs):
        results = run(inputs)
        with torch.no_grad():
            WATCHED["weight"][0, 0] += 1e-3
        return results

    return wrong


FAULTS = {
    "stale learning rate": {"sabotage": stale("rate")},
    "missed buffer": {"sabotage": stale("mean")},
    "skipped weight": {"sabotage": stale("weight")},
    "wrong offset of random numbers": {"wrap": draws_one_more},
    "one weight of one kernel": {"wrap": moves},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_among_rounding(monkeypatch, fault):
    """In a network whose bias before the normalization needs the second look at every step."""
    compiled_as(monkeypatch, **FAULTS[fault])
    assert run()[1]


def test_what_cancels_is_held_against_what_it_came_from():
    """A momentum of which an update leaves next to nothing is off by a rounding of what it was."""
    was, eager = torch.tensor([0.0513]), torch.tensor([1.3e-4])
    pair = ("state tensor of shape (1,)", eager + 6.8e-10, eager, was)
    assert first_difference([pair], exact=True) is None
    pair = ("state tensor of shape (1,)", eager + 6.8e-7, eager, was)
    assert first_difference([pair], exact=True) is not None
