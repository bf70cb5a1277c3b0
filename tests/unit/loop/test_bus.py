"""The bus calls hooks in list order, from a table per phase and turn."""

from contextlib import contextmanager

import pytest
import torch
from torch import nn

from fitkit import Callback, Event, Phase, State, Turn
from fitkit.loop import EventBus
from fitkit.loop.bus import flatten, owner_of
from fitkit.loop.callback import TRAIN_ONLY


@pytest.fixture
def calls():
    return []


@pytest.fixture
def bus():
    return EventBus(State(nn.Identity(), device=torch.device("cpu")))


class Named(Callback):
    def __init__(self, name, calls):
        self.name = name
        self.calls = calls

    def on_forward(self, state):
        self.calls.append(self.name)

    def on_loss_ready(self, state):
        self.calls.append(self.name)

    def on_epoch_end(self, state):
        self.calls.append(self.name)


class InTraining(Named):
    phases = TRAIN_ONLY


def test_list_order(bus, calls):
    bus.build([Named("a", calls), Named("b", calls), Named("c", calls)])
    bus.emit(Event.FORWARD)
    assert calls == ["a", "b", "c"]


def test_only_overridden_hooks_are_in_the_table(bus, calls):
    bus.build([Named("a", calls)])
    heard = {event for event in Event if bus.hooks(Phase.TRAIN, event)}
    assert heard == {Event.FORWARD, Event.LOSS_READY, Event.EPOCH_END}


def test_phases_rule_events_inside_a_pass_only(bus, calls):
    bus.build([InTraining("train", calls), Named("all", calls)])
    with bus.entered(Phase.VAL):
        bus.emit(Event.LOSS_READY)
        bus.emit(Event.EPOCH_END)
    assert calls == ["all", "train", "all"]
    bus.emit(Event.LOSS_READY)
    assert calls[3:] == ["train", "all"]


def test_phase_is_put_back_when_a_hook_raises(bus, calls):
    class Failing(Callback):
        phases = frozenset({Phase.VAL})

        def on_forward(self, state):
            raise KeyError("x")

    bus.build([Failing(), InTraining("train", calls)])
    with pytest.raises(KeyError), bus.entered(Phase.VAL):
        bus.emit(Event.FORWARD)
    bus.emit(Event.FORWARD)
    assert calls == ["train"]


def test_events_a_phase_does_not_have_are_empty(bus):
    class Everywhere(Callback):
        def on_backward(self, state):
            raise AssertionError

    bus.build([Everywhere()])
    assert len(bus.hooks(Phase.TRAIN, Event.BACKWARD)) == 1
    assert bus.hooks(Phase.VAL, Event.BACKWARD) == ()
    assert bus.hooks(Phase.PREDICT, Event.BACKWARD) == ()


def test_turns_have_tables_of_their_own(bus, calls):
    shared = Named("shared", calls)
    turns = Turn("x", [Named("x", calls)]), Turn("y", [Named("y", calls)])
    bus.build([shared, *turns])
    assert bus.turns == turns
    for turn in turns:
        bus.use(turn)
        bus.emit(Event.FORWARD)  # an action: what the turn fills replaces what is shared
        bus.emit(Event.LOSS_READY)  # a moment: both
    assert calls == ["x", "shared", "x", "y", "shared", "y"]
    bus.use(None)
    calls.clear()
    bus.emit(Event.EPOCH_END)  # outside of the step region everybody listens
    assert calls == ["shared", "x", "y"]


def test_no_turn_is_one_unnamed_turn(bus):
    assert bus.turns == (None,)


def test_around_wraps_actions_first_listed_outermost(bus, calls):
    def factory(name):
        @contextmanager
        def entered():
            calls.append(f"+{name}")
            try:
                yield
            finally:
                calls.append(f"-{name}")

        return entered

    outer, inner = Named("outer", calls), Callback()
    outer.around = {Event.FORWARD: factory("outer")}
    inner.around = {Event.FORWARD: factory("inner")}
    bus.build([outer, inner])
    bus.emit(Event.FORWARD)
    assert calls == ["+outer", "+inner", "outer", "-inner", "-outer"]
    assert owner_of(bus.hooks(Phase.TRAIN, Event.FORWARD)[0]) is outer


def test_around_is_left_when_the_action_raises(bus, calls):
    class Failing(Callback):
        def on_forward(self, state):
            raise KeyError("x")

    @contextmanager
    def entered():
        try:
            yield
        finally:
            calls.append("left")

    failing = Failing()
    failing.around = {Event.FORWARD: entered}
    bus.build([failing])
    with pytest.raises(KeyError):
        bus.emit(Event.FORWARD)
    assert calls == ["left"]


def test_tracer_calls_the_hooks_itself_and_leaves_no_trace(bus, calls):
    bus.build([Named("a", calls)])
    plain = bus.emit

    def tracer(event, hook, state):
        calls.append(event.name)
        hook(state)

    bus.add_tracer(tracer)
    bus.emit(Event.FORWARD)
    bus.remove_tracer(tracer)
    bus.emit(Event.FORWARD)
    assert calls == ["FORWARD", "a", "a"]
    assert bus.emit == plain


def test_every_build_is_a_new_version(bus):
    before = bus.version
    bus.build([])
    assert bus.version == before + 1


def test_flatten_keeps_list_order(calls):
    a, b, c = (Named(name, calls) for name in "abc")
    assert flatten([a, Turn("t", [b]), c]) == [a, b, c]


def test_around_holds_in_the_phases_of_its_callback(bus, calls):
    @contextmanager
    def entered():
        calls.append("around")
        yield

    training = InTraining("train", [])
    training.around = {Event.FORWARD: entered}
    bus.build([training, Named("all", calls)])
    with bus.entered(Phase.VAL):
        bus.emit(Event.FORWARD)
    assert calls == ["all"]


def test_a_phase_within_a_turn_leaves_to_the_turn(bus, calls):
    turn = Turn("x", [Named("x", calls)])
    bus.build([turn])
    bus.use(turn)
    with bus.entered(Phase.VAL):
        bus.emit(Event.FORWARD)
    bus.emit(Event.FORWARD)
    assert calls == ["x"]


def test_a_tracer_may_leave_in_the_hook_it_calls(bus, calls):
    def tracer(event, hook, state):
        calls.append("traced")
        bus.remove_tracer(tracer)
        hook(state)

    bus.build([Named("a", calls), Named("b", calls)])
    bus.add_tracer(tracer)
    bus.emit(Event.FORWARD)
    bus.call(Event.FORWARD, bus.hooks(Phase.TRAIN, Event.FORWARD)[0])
    assert calls == ["traced", "a", "b", "a"]
