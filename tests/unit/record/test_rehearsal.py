"""Record(rehearse=True): first steps are undone, and only replays count."""

import copy

import keras
import pytest
import torch
from torch import nn

from fitkit import Callback, ConfigError, Event, FitLoop, Record, TensorLoader, supervised
from fitkit.record import Refused
from tests.unit.record import loops


def keras_loop():
    model = loops.keras_model(keras.layers.BatchNormalization(), keras.layers.Dropout(0.3))
    stack = loops.keras_stack(model, metrics=[keras.metrics.SparseCategoricalAccuracy()])
    return FitLoop(model, loops.loader(), callbacks=stack)


def torch_loop(**options):
    def make():
        model = loops.torch_model(nn.BatchNorm1d(8), nn.Dropout(0.3))
        optimizer = torch.optim.SGD(model.parameters(), **{"lr": 0.1, "momentum": 0.9, **options})
        return FitLoop(model, loops.loader(), callbacks=loops.torch_stack(model, optimizer))

    return make


def fused_loop():
    model = loops.torch_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, fused=True)
    return FitLoop(model, loops.loader(), callbacks=loops.torch_stack(model, optimizer))


def logging_loop():
    loop = fused_loop()
    loop.on(Event.LOSS_READY)(lambda state: state.log("half", state.loss.detach() / 2))
    return loop


def schedule_free_loop():
    model = loops.keras_model()
    optimizer = keras.optimizers.ScheduleFreeAdamW(0.01)  # a slot begins as a copy of the weights
    return FitLoop(model, loops.loader(), callbacks=loops.keras_stack(model, optimizer))


MAKERS = [
    torch_loop(fused=True),
    schedule_free_loop,
    keras_loop,
    torch_loop(),
    torch_loop(weight_decay=0.01),
    fused_loop,
    logging_loop,
]


@pytest.mark.parametrize("make", MAKERS)
def test_every_step_is_a_replay_and_equal_to_the_eager_one(make):
    eager = loops.run(make, None)
    record = Record("interpret", rehearse=True)
    rehearsed = loops.run(make, record)
    assert loops.same(eager, rehearsed)
    assert rehearsed.replays == 15  # three epochs of five batches: none of them ran eagerly


@pytest.mark.parametrize("make", MAKERS)
def test_a_first_step_that_is_not_undone_shows(make, monkeypatch):
    monkeypatch.setattr("fitkit.record.rehearsal._Writes.undo", lambda self: None)
    eager = loops.run(make, None)
    assert not loops.same(eager, loops.run(make, Record("interpret", rehearse=True)))


def test_a_smaller_last_batch_is_rehearsed_too():
    def make():
        model = loops.torch_model()
        loader = loops.loader(36)
        return FitLoop(model, loader, callbacks=loops.torch_stack(model))

    eager = loops.run(make, None)
    rehearsed = loops.run(make, Record("interpret", rehearse=True))
    assert loops.same(eager, rehearsed)
    assert rehearsed.replays == 15


def test_a_batch_that_is_no_lazy_one_is_put_back():
    class Moves(Callback):
        def on_loss_ready(self, state):
            state.targets = (state.targets + 1) % 4  # must not be moved twice
            state.loss = nn.functional.cross_entropy(state.outputs, state.targets)

    def make():
        model = loops.torch_model()
        batches = list(loops.loader())
        loop = FitLoop(model, batches, device="cpu")
        loop.attach(Moves(), loops.torch_stack(model))
        return loop

    eager = loops.run(make, None)
    assert loops.same(eager, loops.run(make, Record("interpret", rehearse=True)))


def parts(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Dropout(0.2), nn.Linear(16, 4))
    return model, torch.optim.Adam(model.parameters(), lr=0.01, fused=True)


def run(model, optimizer, epochs, *, first=0, **options):
    """Train on, from given epochs on, in a loop and with programs of its own."""
    loader = TensorLoader(*loops.data(64), batch_size=8, shuffle=True, seed=1)
    loop = FitLoop(model, loader, device="cpu")
    loop.attach(supervised(loss=nn.CrossEntropyLoss(), optimizer=optimizer))
    loop.attach(Record("inductor", **options))
    loop.state.epoch = loop.state.num_epochs = first
    loop.fit(epochs=epochs)


def weights_in_two_parts(**options):
    """Weights after 4 epochs in one go, and after 2 in one loop and 2 in another one."""
    model, optimizer = parts()
    run(model, optimizer, 4, **options)
    other, its = parts()
    run(other, its, 2, **options)
    random = torch.get_rng_state()
    model_again, optimizer_again = parts(seed=9)
    model_again.load_state_dict(copy.deepcopy(other.state_dict()))
    optimizer_again.load_state_dict(copy.deepcopy(its.state_dict()))
    torch.set_rng_state(random)
    run(model_again, optimizer_again, 2, first=2, **options)
    return model.state_dict().values(), model_again.state_dict().values()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_compiled_run_in_two_parts_is_bit_equal_to_one_in_one_go():
    assert all(map(torch.equal, *weights_in_two_parts(rehearse=True)))
    assert not all(map(torch.equal, *weights_in_two_parts()))


def test_auto_cannot_be_repeated():
    with pytest.raises(ConfigError, match="chooses a backend by the time"):
        Record(rehearse=True)


def test_what_cannot_be_recorded_raises():
    loop = fused_loop()
    loop.on(Event.LOSS_READY)(lambda state: state.loss.item())
    loop.attach(Record("interpret", rehearse=True))
    with pytest.raises(Refused, match="reads the value"):
        loop.fit(epochs=1)


def test_momentum_with_dampening_is_refused():
    loop = torch_loop(dampening=0.5)()
    loop.attach(Record("interpret", rehearse=True))
    with pytest.raises(Refused, match="dampening"):
        loop.fit(epochs=1)


def test_the_report_counts_no_rehearsed_step():
    record = Record("interpret", rehearse=True)
    report = loops.run(fused_loop, record).report
    assert report.splitlines()[1].split()[-2:] == ["15", "0"], report


def unfreezing_loop():
    """The momentum of a part that joins later begins with a first gradient of its own."""
    model = loops.torch_model()
    model[0].requires_grad_(False)
    loop = FitLoop(model, loops.loader(), callbacks=loops.torch_stack(model))

    @loop.on(Event.BATCH_END)
    def unfreeze(state):
        if state.num_updates == 7:
            model[0].requires_grad_(True)

    return loop


def test_momentum_of_weights_that_join_later_begins_anew():
    eager = loops.run(unfreezing_loop, None)
    rehearsed = loops.run(unfreezing_loop, Record("interpret", rehearse=True))
    assert loops.same(eager, rehearsed)
    assert rehearsed.replays == 15


def test_momentum_that_does_not_begin_anew_shows(monkeypatch):
    monkeypatch.setattr("fitkit.record.rehearsal._begin_anew", lambda *args: None)
    eager = loops.run(unfreezing_loop, None)
    rehearsed = loops.run(unfreezing_loop, Record("interpret", rehearse=True))
    assert not loops.same(eager, rehearsed)


class KeepsFirst(torch.optim.SGD):
    """Keeps the first gradient, as optimizers may that begin with it."""

    def step(self, closure=None):
        for parameter in self.param_groups[0]["params"]:
            self.state[parameter].setdefault("first", parameter.grad.clone())
            parameter.data.sub_(self.state[parameter]["first"], alpha=0.01)


def test_a_slot_made_of_the_first_gradient_is_refused():
    model = loops.torch_model()
    optimizer = KeepsFirst(model.parameters(), lr=0.1)
    loop = FitLoop(model, loops.loader(), callbacks=loops.torch_stack(model, optimizer))
    loop.attach(Record("interpret", rehearse=True))
    with pytest.raises(Refused, match="KeepsFirst takes first from its first step"):
        loop.fit(epochs=1)


def test_an_attribute_made_of_the_first_loss_is_refused():
    class Average(Callback):
        mean = None

        def on_loss_ready(self, state):
            if self.mean is None:
                self.mean = state.loss.detach().clone()
            self.mean.mul_(0.9).add_(0.1 * state.loss.detach())
            state.loss = state.loss / self.mean

    model = loops.torch_model()
    loop = FitLoop(model, loops.loader(), callbacks=loops.torch_stack(model))
    loop.attach(Average(), Record("interpret", rehearse=True))
    with pytest.raises(Refused, match="first step changes Python state: Average.mean"):
        loop.fit(epochs=1)


def in_turns(record):
    """Weights after two loops with one optimizer that accumulates have trained in turns."""
    keras.utils.set_random_seed(3)
    keras.utils.clear_session()
    model = loops.keras_model()
    optimizer = keras.optimizers.Adam(1e-2, gradient_accumulation_steps=2)
    both = []
    for seed in (0, 1):
        batches = TensorLoader(*loops.data(40, seed=seed), batch_size=8)  # five: an odd number
        both.append(FitLoop(model, batches, callbacks=loops.keras_stack(model, optimizer)))
        if record:
            both[-1].attach(Record("inductor"))
    for loop in both * 3:
        loop.fit(epochs=1)
    counts = [r.program.backend for loop in both for r in loop_programs(loop)]
    return [v.value.detach().clone() for v in (*model.variables, *optimizer.variables)], counts


def loop_programs(loop):
    records = [each for each in loop.callbacks if isinstance(each, Record)]
    found = [r for record in records for r in record.recordings.values()]
    return [recording for recording in found if recording.program is not None]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_two_compiled_loops_with_one_accumulating_optimizer_are_equal_to_eager_ones():
    eager, _ = in_turns(record=False)
    compiled, backends = in_turns(record=True)
    assert len(backends) >= 4  # both loops, both halves of a window
    assert "inductor" in backends
    assert all(torch.allclose(a, b, 1e-4, 1e-5) for a, b in zip(eager, compiled, strict=True))
