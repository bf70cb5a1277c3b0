"""Where nobody's code runs between two steps, Record looks for changes now and then only."""

import copy
from collections.abc import Iterator

import pytest
import torch
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from fitkit import (
    Callback,
    Event,
    FitLoop,
    Freeze,
    Limits,
    LRSchedule,
    NaNGuard,
    Record,
    State,
    Throughput,
    Turn,
)
from fitkit.loop.callback import TRAIN_ONLY
from fitkit.record import unchanged
from fitkit.record.python_state import PythonState
from tests.unit.record import loops

NUM_STEPS = 100


class Scaled(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.factor = 1.0

    def forward(self, x):
        return x * self.factor


class Between(Callback):
    """Runs a function between two steps, and says that it changes nothing."""

    phases = TRAIN_ONLY
    only_watches = True

    def __init__(self, act, *, at=50):
        self.act, self.at = act, at

    def on_batch_end(self, state: State):
        if state.num_batches == self.at:
            self.act()


class _Sampler(RandomSampler):
    pass


def _loop(*callbacks, record=None, loader=None, unpack=None):
    torch.manual_seed(0)
    model = loops.torch_model(Scaled())
    loop = FitLoop(model, loader or loops.loader(NUM_STEPS * 8), unpack=unpack)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    loop.attach(loops.torch_stack(model, optimizer), *callbacks, record or Record("interpret"))
    return loop


@pytest.fixture
def looks(monkeypatch) -> Iterator[list[int]]:
    """A list that grows with every look at the Python state."""
    calls: list[int] = []
    version = PythonState.version
    monkeypatch.setattr(PythonState, "version", lambda self: calls.append(1) or version(self))
    return calls


class Counted(Throughput):
    """A callback of fitkit's that only watches, and a hook that may do anything."""

    def on_batch_end(self, state: State):
        super().on_batch_end(state)


def _looks_of(loop, looks):
    loop.fit(epochs=1)  # all that is built, is built
    looks.clear()
    loop.fit(epochs=1)
    return len(looks)


def test_it_looks_every_16_steps(looks):
    assert NUM_STEPS / 16 < _looks_of(_loop(), looks) < NUM_STEPS / 10


def test_a_hook_that_may_change_things_makes_it_look_at_every_step(looks):
    loop = _loop()
    loop.on(Event.BATCH_END)(lambda state: None)
    assert _looks_of(loop, looks) >= NUM_STEPS


def test_a_subclass_with_a_hook_of_its_own_has_to_say_it_again(looks):
    assert _looks_of(_loop(Throughput()), looks) < NUM_STEPS / 10
    assert _looks_of(_loop(Counted()), looks) >= NUM_STEPS


def _dataloader(sampler):
    dataset = TensorDataset(*loops.data(NUM_STEPS * 8))
    return DataLoader(dataset, batch_size=8, sampler=sampler(dataset))


def test_a_plain_dataloader_is_trusted_and_a_sampler_of_the_users_is_not(looks):
    assert _looks_of(_loop(loader=_dataloader(RandomSampler)), looks) < NUM_STEPS / 10
    assert _looks_of(_loop(loader=_dataloader(_Sampler)), looks) >= NUM_STEPS


def test_unpack_is_code_of_the_users(looks):
    assert _looks_of(_loop(unpack=lambda batch: (*batch, None)), looks) >= NUM_STEPS


def _weights(loop):
    return copy.deepcopy(loop.model.state_dict())


def _equal(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def _run_with_change(change_at, *, attach):
    """Train 100 steps whose factor doubles after a step; return the weights."""
    loop = _loop()

    def double():
        loop.model[2].factor *= 2

    attach(loop, double, change_at)
    loop.fit(epochs=1)
    return _weights(loop)


def _honest(loop, act, at):
    loop.on(Event.BATCH_END, when=lambda state: state.num_batches == at)(lambda state: act())


def _secret(loop, act, at):
    loop.attach(Between(act, at=at))


def test_a_change_from_elsewhere_is_seen_after_16_steps_at_most():
    late = _run_with_change(50, attach=_secret)
    seen = [at for at in range(50, 68) if _equal(late, _run_with_change(at, attach=_honest))]
    assert len(seen) == 1
    assert 50 < seen[0] <= 66  # it says that it only watches, and does not


def test_without_a_bound_only_the_audit_sees_it(monkeypatch):
    monkeypatch.setattr(unchanged, "LOOKS_EVERY", 10**9)
    with pytest.warns(UserWarning, match="a replay differs from the eager step"):
        _run_with_change(50, attach=_secret)


@pytest.mark.parametrize("event", [Event.SAVE, Event.VALIDATE])
def test_what_a_request_lets_run_takes_effect_at_the_next_step(event):
    def attach(loop, act, at):
        loop.attach(Between(lambda: loop.state.request(event), at=at))
        loop.on(event, when=lambda state: state.num_batches == at)(lambda state: act())

    assert _equal(_run_with_change(50, attach=attach), _run_with_change(50, attach=_honest))


def test_a_request_of_an_eager_step_is_served():
    loop = _loop()
    loop.attach(Between(loop.state.request_eager))
    loop.fit(epochs=1)
    first = next(iter(loop.callbacks[-2].recordings.values()))
    assert first.num_eager == 2


@pytest.mark.parametrize("of", ["lr", "weight_decay"])
def test_schedules_act_at_every_step(of):
    def trained(*callbacks):
        torch.manual_seed(0)
        model = loops.torch_model()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=0.1, fused=True)
        loop = FitLoop(model, loops.loader(), callbacks=[*loops.torch_stack(model, optimizer)])
        schedule = LRSchedule(lambda step: 0.1 / (1 + step // 2), of=of)
        loop.attach(schedule, *callbacks).fit(epochs=2)
        return _weights(loop)

    assert _equal(trained(Record("interpret", max_programs=64)), trained())


def test_passes_without_training_are_quiet_too(looks):
    loop = _loop()
    loader = loops.loader(NUM_STEPS * 8)
    for run in (loop.evaluate, loop.predict):
        run(loader)
        looks.clear()
        run(loader)
        assert len(looks) < NUM_STEPS / 10


def test_a_pass_within_a_pass_leaves_the_loader_of_the_outer_one_in_place(looks):
    loop = _loop(loader=_dataloader(_Sampler))
    plain = loops.loader(NUM_STEPS * 8)
    loop.attach(Between(lambda: loop.evaluate(plain), at=NUM_STEPS + 50))
    assert NUM_STEPS <= _looks_of(loop, looks) < 1.3 * NUM_STEPS


def test_two_turns_share_what_was_seen(looks):
    def turn(name, model):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        return Turn(name, list(loops.torch_stack(model, optimizer))[1:-2])

    torch.manual_seed(0)
    model = loops.torch_model()
    loop = FitLoop(model, loops.loader(NUM_STEPS * 8), callbacks=[turn("a", model)])
    loop.attach(turn("b", model), Record("interpret"))
    assert _looks_of(loop, looks) < NUM_STEPS / 2  # of twice as many steps


def _frozen_run(record, start):
    loop = _loop(Freeze("0", start=start), record=record)
    loop.fit(epochs=1)
    return _weights(loop)


@pytest.mark.parametrize("start", [1, 37, 48])
def test_what_freezes_at_an_update_is_looked_at_in_time(looks, start):
    record = Record("interpret")
    recorded, num_looks = _frozen_run(record, start), len(looks)
    assert _equal(recorded, _frozen_run(Throughput(), start))
    assert num_looks < 60  # at every step only near the update


def test_without_its_saying_so_it_is_seen_too_late(monkeypatch):
    monkeypatch.setattr("fitkit.tune.freeze.LOOKS_EVERY", 0)
    monkeypatch.setattr("fitkit.record.recording.is_due", lambda program: False)
    assert not _equal(_frozen_run(Record("interpret"), 37), _frozen_run(Throughput(), 37))


@pytest.mark.parametrize("make", [lambda: Limits(max_steps=10**6), lambda: NaNGuard("skip")])
def test_a_callback_that_only_watches_costs_no_look(looks, make):
    assert _looks_of(_loop(make()), looks) < NUM_STEPS / 10
