"""What turns share and what each has for itself."""

import keras
from torch import nn

from fitkit import (
    Backward,
    Callback,
    Event,
    FitLoop,
    Forward,
    KerasApply,
    TorchLoss,
    Turn,
    ZeroGrad,
)
from fitkit.loop.callback import TRAIN_ONLY
from tests.unit.loop.helpers import loader, recorder


def test_each_turn_scales_its_own_loss():
    model, seen = nn.Linear(1, 1), []
    scaling = [keras.optimizers.SGD(1e-3, loss_scale_factor=scale) for scale in (8.0, 32.0)]
    turns = [Turn(str(n), [ZeroGrad(), Backward(), KerasApply(o)]) for n, o in enumerate(scaling)]
    loop = FitLoop(model, loader(), callbacks=[Forward(), TorchLoss(nn.MSELoss()), *turns])

    @loop.on(Event.GRADS_READY)
    def look(state):
        seen.append(state.grad_scale.item())

    loop.fit(max_steps=2)
    assert seen == [8.0, 32.0, 8.0, 32.0]


def test_a_turn_that_misses_the_first_batch_of_a_window_opens_its_own():
    class Window(Callback):
        phases = TRAIN_ONLY

        def on_batch_begin(self, state):
            state.opens_update = state.batch_index % 2 == 0
            state.closes_update = not state.opens_update

    events = Event.ZERO_GRAD, Event.FORWARD, Event.LOSS, Event.BACKWARD, Event.APPLY
    step = recorder(*events)
    loop = FitLoop(nn.Linear(1, 1), loader(4), callbacks=[Window(), Turn("t", [step], every=2)])
    loop.fit(epochs=1)
    assert step.heard == 2 * [event.name for event in events]
    assert loop.state.turn_updates == {"t": 2}
