"""Attaching and detaching, before and in the middle of a run."""

import re

import keras
import pytest
import torch

from fitkit import (
    Callback,
    ConfigError,
    Cosine,
    Event,
    LRFinder,
    Phase,
    Plateau,
    Stack,
    Turn,
    ZeroGrad,
    supervised,
)
from tests.unit.loop.helpers import loader, make_loop, recorder


def sgd():
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)


BATCH = ["BATCH_BEGIN", "BATCH_END"]


def heard_outside_the_region(callback):
    region = {event.name for event in Event if Event.ZERO_GRAD <= event <= Event.UPDATE_METRICS}
    return [name for name in callback.heard if name not in region]


def test_attach_returns_the_loop_and_keeps_the_order():
    loop = make_loop()
    one, two, three = Callback(), Callback(), Callback()
    assert loop.attach(one, Stack((two, three))) is loop
    assert loop.callbacks[-3:] == [one, two, three]


def test_attach_and_detach_are_told_to_the_callback():
    told = []

    class Told(Callback):
        def attach(self, loop):
            told.append(("attach", loop))

        def detach(self, loop):
            told.append(("detach", loop))

    loop, callback = make_loop(), Told()
    loop.attach(callback)
    loop.detach(callback)
    assert told == [("attach", loop), ("detach", loop)]
    assert callback not in loop.callbacks


def listener(*events):
    """Listens to moments only: what fills an action a second time is refused."""
    actions = {Event.ZERO_GRAD, Event.FORWARD, Event.LOSS, Event.BACKWARD, Event.APPLY}
    return recorder(*(event for event in events or Event if event not in actions))


def test_newcomer_gets_the_opening_events_it_missed():
    newcomer = listener()
    loop = make_loop()

    @loop.on(Event.BATCH_END, once=True, when=lambda state: state.num_batches == 2)
    def add(state):
        loop.attach(newcomer)

    loop.fit(epochs=1)
    opening = ["OPEN", "FIT_BEGIN", "EPOCH_BEGIN", "PASS_BEGIN"]
    closing = ["PASS_END", "VALIDATE", "EPOCH_END", "SAVE", "FIT_END", "CLOSE"]
    assert heard_outside_the_region(newcomer) == [*opening, *BATCH, *BATCH, *closing]


def test_leaver_is_closed_at_the_next_batch_and_hears_no_more():
    leaver = listener()
    loop = make_loop(leaver)

    @loop.on(Event.BATCH_END, once=True, when=lambda state: state.num_batches == 2)
    def drop(state):
        loop.detach(leaver)

    loop.fit(epochs=1)
    opening = ["OPEN", "FIT_BEGIN", "EPOCH_BEGIN", "PASS_BEGIN"]
    assert heard_outside_the_region(leaver) == [*opening, *BATCH, *BATCH, "CLOSE"]
    assert leaver not in loop.callbacks


def test_changes_take_effect_between_batches_only():
    """All hooks of one batch see the same table, so a step is never half of one stack."""
    late = listener(Event.BATCH_END)
    loop = make_loop()

    @loop.on(Event.BATCH_BEGIN, once=True)
    def add(state):
        loop.attach(late)
        assert late not in loop.callbacks

    loop.fit(epochs=1)
    assert len(late.heard) == 3


def test_changes_of_the_last_batch_are_made_after_the_run():
    late, leaver = listener(), listener(Event.CLOSE)
    loop = make_loop(leaver)

    @loop.on(Event.FIT_END, once=True)
    def change(state):
        loop.attach(late)
        loop.detach(leaver)

    loop.fit(epochs=1)
    assert late in loop.callbacks
    assert leaver not in loop.callbacks
    assert late.heard == []  # it joined when the run was over
    assert leaver.heard == ["CLOSE"]


def test_every_change_builds_the_table_anew():
    loop, callback = make_loop(), Callback()
    versions = [loop.bus.version]
    loop.attach(callback)
    versions.append(loop.bus.version)
    loop.detach(callback)
    versions.append(loop.bus.version)
    assert versions == sorted(set(versions))


def test_needs_of_those_attached_are_known():
    class NeedsOutputs(Callback):
        needs = frozenset({"outputs"})

    loop, callback = make_loop(), NeedsOutputs()
    loop.attach(callback)
    assert loop.state.needs == {"outputs"}
    loop.detach(callback)
    assert loop.state.needs == frozenset()


def test_a_callback_may_join_during_evaluate():
    late, loop = listener(Event.BATCH_END), make_loop(val=loader(3))

    @loop.on(Event.BATCH_END, phases=["val"], once=True)
    def add(state):
        loop.attach(late)

    loop.evaluate()
    assert late in loop.callbacks


def test_what_is_about_to_join_cannot_be_attached_again():
    late = recorder(Event.BATCH_END)
    loop = make_loop()

    @loop.on(Event.BATCH_END, once=True)
    def attach_twice(state):
        loop.attach(late)
        with pytest.raises(ConfigError, match="are the same Recorder instance"):
            loop.attach(late)

    loop.fit(epochs=1)
    assert loop.callbacks.count(late) == 1


def test_what_cannot_join_a_run_is_not_left_behind():
    loop = make_loop()

    @loop.on(Event.BATCH_END, once=True)
    def attach_another(state):
        loop.attach(ZeroGrad())

    with pytest.raises(ConfigError, match="ZERO_GRAD is filled twice") as caught:
        loop.fit(epochs=1)
    assert "raised in attach_another.on_batch_end at BATCH_END" in caught.value.__notes__
    assert len(loop.fit(epochs=1)) == 1


def test_what_a_run_cannot_do_without_is_missed_where_it_was_detached():
    loop = make_loop()
    needed = next(each for each in loop.callbacks if isinstance(each, ZeroGrad))

    @loop.on(Event.EPOCH_BEGIN)
    def drop(state):
        loop.detach(needed)

    with pytest.raises(ConfigError, match="nothing fills ZERO_GRAD") as caught:
        loop.fit(epochs=1)
    assert "raised in drop.on_epoch_begin at EPOCH_BEGIN" in caught.value.__notes__


def test_a_newcomer_that_fails_is_named_itself():
    class Fails(Callback):
        def on_open(self, state):
            raise OSError("no file")

    loop = make_loop()
    loop.on(Event.BATCH_END, once=True)(lambda state: loop.attach(Fails()))
    with pytest.raises(OSError, match="no file") as caught:
        loop.fit(epochs=1)
    assert "raised in Fails.on_open at OPEN" in caught.value.__notes__


@pytest.mark.parametrize("phases", ["train", Phase.TRAIN, {"training"}, None])
@pytest.mark.parametrize("in_a_turn", [False, True])
def test_phases_that_are_none_would_never_come(phases, in_a_turn):
    class Deaf(Callback):
        pass

    Deaf.phases = phases
    with pytest.raises(ConfigError, match=r"Deaf.phases is .*\n.*frozenset\({Phase.TRAIN}\)"):
        make_loop(Turn("turn", [Deaf()]) if in_a_turn else Deaf())
    Deaf.phases = {"train"}  # a name equals its phase
    make_loop(Deaf())


def test_a_search_is_no_callback():
    with pytest.raises(TypeError, match=r"LRFinder\(\).find\(loop\)"):
        make_loop(LRFinder())


@pytest.mark.parametrize(
    ("make", "hint"),
    [
        (lambda: Cosine(0.1, steps=9), "LRSchedule(Cosine(...))"),
        (lambda: torch.optim.lr_scheduler.StepLR(sgd(), 1), "LRSchedule(StepLR(...))"),
        (lambda: keras.optimizers.schedules.CosineDecay(0.1, 9), "LRSchedule(CosineDecay(...))"),
        (lambda: Plateau("val_loss"), "LRSchedule(Plateau(...))"),
        (lambda: sgd(), "supervised(loss="),
        (lambda: torch.nn.MSELoss(), "supervised(loss="),
        (lambda: keras.metrics.Mean(), "supervised(loss="),
    ],
)
def test_the_part_of_a_callback_is_no_callback(make, hint):
    with pytest.raises(TypeError, match=re.escape(hint)):
        make_loop(make())


def test_the_parts_of_two_stacks():
    stack = supervised(loss="mse", optimizer="adam")
    with pytest.raises(ConfigError, match="attach one stack"):
        make_loop(*stack, *supervised(loss="mse", optimizer="adam"))
