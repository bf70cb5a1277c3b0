"""What an assembled stack is refused for, before the first batch."""

import pytest
import torch
from torch import nn

from fitkit import (
    Backward,
    Callback,
    CallbackOrderError,
    Event,
    FitLoop,
    Forward,
    Phase,
    TorchLoss,
    TorchStep,
    Turn,
    ZeroGrad,
)
from fitkit.loop.callback import TRAIN_ONLY
from fitkit.loop.checks import SUPPLIERS, check_assembly
from fitkit.loop.events import ACTIONS
from tests.unit.loop.helpers import loader


class WholeStep(Callback):
    phases = TRAIN_ONLY
    fills = frozenset(event for event in Event if 5 <= event <= 12)

    def on_forward(self, state):
        """The whole step."""


class ClipAtGradsReady(Callback):
    phases = TRAIN_ONLY

    def on_grads_ready(self, state):
        """Clip."""


class First(Callback):
    after = ("Second",)


class Second(Callback):
    """Anything."""


@pytest.fixture
def model():
    return nn.Linear(1, 1)


@pytest.fixture
def stack(model):
    step = TorchStep(torch.optim.SGD(model.parameters(), lr=0.1))
    return [ZeroGrad(), Forward(), TorchLoss(nn.MSELoss()), Backward(), step]


def refused(entries, phase=Phase.TRAIN):
    with pytest.raises(CallbackOrderError) as caught:
        check_assembly(entries, phase)
    return str(caught.value)


def test_complete_stack_passes(stack):
    for phase in Phase:
        check_assembly(stack, phase)


def test_each_missing_action_names_who_fills_it(stack):
    for index, event in enumerate(ACTIONS[Phase.TRAIN]):
        message = refused([*stack[:index], *stack[index + 1 :]])
        assert f"nothing fills {event.name} in train" in message
        assert all(name in message for name in SUPPLIERS[event])


def test_validation_needs_no_loss(stack):
    check_assembly([stack[1]], Phase.VAL)
    assert "FORWARD" in refused([stack[2]], Phase.VAL)


def test_doubled_action_names_both(stack):
    message = refused([*stack, Forward()])
    assert "FORWARD is filled twice" in message
    assert "callbacks[1] Forward" in message
    assert "callbacks[5] Forward" in message


def test_two_fillers_in_different_phases_are_fine(stack):
    class ForwardInTraining(Callback):
        phases = TRAIN_ONLY

        def on_forward(self, state):
            """Another forward."""

    class ForwardElsewhere(ForwardInTraining):
        phases = frozenset({Phase.VAL, Phase.PREDICT})

    entries = [*stack[:1], ForwardInTraining(), ForwardElsewhere(), *stack[2:]]
    for phase in Phase:
        check_assembly(entries, phase)


def test_turns_are_checked_one_by_one(stack):
    zero_grad, forward, loss, backward, step = stack
    shared = [zero_grad, forward, loss, backward]
    other = TorchStep(step.optimizer)
    check_assembly([*shared, Turn("a", [step]), Turn("b", [other])], Phase.TRAIN)
    message = refused([*shared, Turn("a", [step]), Turn("b", [])])
    assert "nothing fills APPLY in train, turn 'b'" in message


def test_moments_that_a_whole_step_swallows(stack):
    check_assembly([WholeStep()], Phase.TRAIN)
    message = refused([WholeStep(), ClipAtGradsReady()])
    assert "ClipAtGradsReady listens to GRADS_READY, which never fires" in message
    assert "WholeStep" in message


def test_after(stack):
    check_assembly([*stack, Second(), First()], Phase.TRAIN)
    message = refused([*stack, First(), Second()])
    assert "First" in message
    assert "Right order: Second, First." in message
    check_assembly([*stack, First()], Phase.TRAIN)  # without the other there is no order


def test_fit_refuses_before_anything_ran(model, stack):
    opened = []

    class Opened(Callback):
        def on_open(self, state):
            opened.append(state)

    loop = FitLoop(model, loader(), callbacks=[Opened(), *stack[:-1]])
    before = model.weight.clone()
    with pytest.raises(CallbackOrderError, match="APPLY"):
        loop.fit(epochs=1)
    assert opened == []
    assert torch.equal(model.weight, before)
    assert loop.state.num_batches == 0
