"""The copy of what a step logs, made within the step."""

import pytest
import torch

from fitkit import Accumulate, Callback, Event, Phase, Record, TensorBoard
from fitkit.loop.packed import Packed
from fitkit.loop.state import State
from tests.unit.watch.helpers import make_loop

MODES = pytest.mark.parametrize("backend", [None, "interpret", "inductor"])
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")


class Reads(Callback):
    """Keep what was copied, then write to all that was logged."""

    needs = frozenset({"packed"})

    def __init__(self):
        self.seen, self.losses = [], []

    def on_batch_end(self, state):
        self.seen.append(state.packed)
        self.losses.append(state.loss.clone())
        for value in (state.loss, *state.step_values.values()):
            value.fill_(-1)


def run(*callbacks, names=("loss",), num_samples=20):
    reads = Reads()
    loop = make_loop(*callbacks, reads, num_samples=num_samples)
    for name in names[1:]:
        loop.on(Event.UPDATE_METRICS)(lambda state, name=name: state.log(name, state.loss * 2))
    loop.fit(2)
    return reads


def record(backend):
    return [Record(backend)] if backend else []


@MODES
@pytest.mark.parametrize("names", [("loss",), ("loss", "twice")])
def test_what_the_step_has_logged_is_copied(backend, names):
    reads = run(*record(backend), names=names)
    assert len(reads.seen) == 10
    for packed, loss in zip(reads.seen, reads.losses, strict=True):
        assert packed.names == names
        assert packed.copies.tolist() == [loss.item(), loss.item() * 2][: len(names)]
        assert not packed.copies.requires_grad
        assert packed.beside == {}


@MODES
def test_parts_of_an_update_are_copied_each(backend):
    seen = run(*record(backend), Accumulate(2), num_samples=32).seen
    assert [packed.names for packed in seen] == [("loss",)] * 16


@MODES
@pytest.mark.parametrize("event", [Event.BATCH_BEGIN, Event.BATCH_END])
def test_what_is_logged_beside_the_step_is_copied_at_once(backend, event):
    class Keeps(Callback):
        needs = frozenset({"packed"})
        seen = ()

        def on_batch_end(self, state):
            self.seen = (*self.seen, state.packed)

    keeps, count = Keeps(), torch.zeros(())
    loop = make_loop(*record(backend), keeps)
    loop.on(event)(lambda state: state.log("count", count.add_(1)))  # always in the same memory
    loop.fit(2)
    values = [dict(zip(p.names, p.copies, strict=True)) | p.beside for p in keeps.seen]
    assert [float(each["count"]) for each in values] == [float(k) for k in range(1, 11)]
    assert all("loss" in each for each in values)


def test_what_is_elsewhere_or_no_tensor_is_not_copied():
    reads, loop = Reads(), None
    loop = make_loop(reads)
    loop.on(Event.UPDATE_METRICS)(lambda state: state.step_values.update(host=torch.ones(1).sum()))
    loop.on(Event.UPDATE_METRICS)(lambda state: state.step_values.update(meta=_meta()))
    loop.on(Event.BATCH_END)(lambda state: state.step_values.clear())
    loop.fit(1)
    assert reads.seen == [None] * 5


def _meta():
    return torch.ones((), device="meta")


def test_nothing_is_copied_where_nobody_needs_it():
    loop, seen = make_loop(), []
    loop.on(Event.BATCH_END)(lambda state: seen.append(state.packed))
    loop.fit(1)
    assert seen == [None] * 5
    assert "packed" in TensorBoard.needs


def test_what_a_step_logs_and_its_extra_are_as_ever():
    loop, seen = make_loop(Reads()), []

    @loop.on(Event.BATCH_BEGIN)
    def replace(state):
        state.extra = {"anything": 1}

    loop.on(Event.BATCH_END)(lambda state: seen.append((state.extra, [*state.step_values])))
    loop.fit(1)
    assert seen == [({"anything": 1}, ["loss"])] * 5


def test_a_count_beside_a_bfloat16_keeps_its_digits():
    reads = Reads()
    loop = make_loop(reads)
    loop.on(Event.UPDATE_METRICS)(lambda state: state.log("half", state.loss.bfloat16()))
    loop.on(Event.UPDATE_METRICS)(lambda state: state.log("count", torch.tensor(1013)))
    loop.fit(1)
    assert [packed.copies[2].item() for packed in reads.seen] == [1013.0] * 5


@MODES
def test_tensors_of_the_step_are_copied_with_it(backend):
    rate = torch.tensor(0.5)

    class WithRate(Reads):
        def on_fit_begin(self, state):
            if state.num_updates:  # what was recorded before knows nothing of it
                state.rates = {"rate": lambda: rate}

    reads = WithRate()
    loop = make_loop(*record(backend), reads)
    loop.fit(1)
    loop.fit(1)
    rate.fill_(0.25)
    loop.fit(1)
    names = [packed.names for packed in reads.seen]
    assert names == [("loss",)] * 5 + [("rate", "loss")] * 10
    assert [p.copies[0].item() for p in reads.seen[5:]] == [0.5] * 5 + [0.25] * 5


def test_names_of_any_kind_stay_apart():
    reads = Reads()
    loop = make_loop(reads)
    names = ["a\0b", "\0packed x", "'", "a/b", "ä\n"]
    for name in names:
        loop.on(Event.UPDATE_METRICS)(lambda state, name=name: state.log(name, state.loss * 2))
    loop.fit(1)
    assert [packed.names for packed in reads.seen] == [("loss", *names)] * 5


def test_what_is_logged_beside_the_step_is_copied_to_the_device_of_the_loop():
    state = State(torch.nn.Linear(1, 1), device=torch.device("meta"))
    state.phase, state.log_owners, state.step_values, state.batch_size = Phase.TRAIN, {}, {}, 1
    state.packed = Packed(("loss",), torch.ones(1, device="meta"), {})
    state.log("host", torch.tensor(1.0))
    torch.cat([state.packed.copies, state.packed.beside["host"]])  # as all are read at once
    assert state.packed.beside["host"].device == state.device
