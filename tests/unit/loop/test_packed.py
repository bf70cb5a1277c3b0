"""The copy of what a step logs, made within the step."""

import pytest
import torch

from fitkit import Accumulate, Callback, Event, Record, TensorBoard
from tests.unit.watch.helpers import make_loop


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


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("backend", [None, "interpret", "inductor"])
@pytest.mark.parametrize("names", [("loss",), ("loss", "twice")])
def test_what_the_step_has_logged_is_copied(backend, names):
    reads = run(*([Record(backend)] if backend else []), names=names)
    assert len(reads.seen) == 10
    for packed, loss in zip(reads.seen, reads.losses, strict=True):
        assert tuple(packed.values) == names
        assert packed.copies.tolist() == [loss.item(), loss.item() * 2][: len(names)]
        assert not packed.copies.requires_grad


def test_parts_of_an_update_are_not_copied():
    assert run(Accumulate(2), num_samples=32).seen == [None] * 16


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
