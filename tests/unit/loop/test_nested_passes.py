"""Passes that callbacks run within other passes leave the outer one as it was."""

import keras
import torch
from torch import nn

from fitkit import (
    Callback,
    Event,
    FitLoop,
    Forward,
    Metrics,
    Phase,
    TensorLoader,
    TorchLoss,
    TorchStep,
    TrainMode,
    Turn,
    supervised,
)
from fitkit.loop.callback import TRAIN_ONLY
from fitkit.step import Backward, ZeroGrad
from tests.unit.loop.helpers import loader


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=1e-3)


def test_a_prediction_within_a_prediction_keeps_the_outer_outputs():
    loop = FitLoop(nn.Identity(), callbacks=[Forward()])
    inner = []

    @loop.on(Event.BATCH_END, phases=[Phase.PREDICT], once=True)
    def predict_another(state):
        inner.append(loop.predict(TensorLoader(torch.full((3, 1), 7.0))))

    rows = torch.arange(8.0).unsqueeze(1)
    assert loop.predict(TensorLoader(rows, batch_size=2)).ravel().tolist() == list(range(8))
    assert inner[0].ravel().tolist() == [7.0, 7.0, 7.0]


def test_an_evaluation_inside_a_turn_goes_back_to_the_table_of_the_turn():
    class Evaluate(Callback):
        phases = TRAIN_ONLY

        def attach(self, loop):
            self.loop = loop

        def on_loss_ready(self, state):
            self.loop.evaluate()

    def trained(*extra):
        torch.manual_seed(0)
        model = nn.Linear(1, 1)
        turn = Turn("only", [ZeroGrad(), *extra, Backward(), TorchStep(sgd(model))])
        parts = [TrainMode(), Forward(), TorchLoss(nn.MSELoss()), Metrics(), turn]
        loop = FitLoop(model, loader(), loader(), callbacks=parts)
        loop.fit(epochs=1)
        return model.weight.item(), loop.state.turn_updates

    assert trained(Evaluate()) == trained()


def test_an_evaluation_before_the_first_batch_may_build_a_metric():
    labels = torch.eye(3)[torch.arange(8) % 3]
    model = nn.Linear(4, 3)
    torch.manual_seed(0)
    train = TensorLoader(torch.randn(8, 4), labels, batch_size=4)
    val = TensorLoader(torch.randn(5, 4), labels[:5], batch_size=4)

    def f1(*, evaluates):
        model.load_state_dict(start)
        stack = supervised(
            loss=nn.CrossEntropyLoss(), optimizer=sgd(model), metrics=[keras.metrics.F1Score()]
        )
        loop = FitLoop(model, train, val, callbacks=stack)

        @loop.on(Event.BATCH_BEGIN, once=True)
        def evaluate(state):
            if evaluates:
                loop.evaluate()

        return loop.fit(epochs=1)["f1_score_0"]

    start = {name: value.clone() for name, value in model.state_dict().items()}
    assert f1(evaluates=True) == f1(evaluates=False)
