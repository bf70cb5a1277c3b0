"""Loss and metrics of a pass: weighted, reset, read once, put aside for an inner pass."""

import keras
import pytest
import torch
import torchmetrics
from torch import nn

from fitkit import (
    Backward,
    Event,
    FitLoop,
    Forward,
    Metrics,
    TensorLoader,
    TorchLoss,
    TorchStep,
    TrainMode,
    Turn,
    Validate,
    ZeroGrad,
    supervised,
)
from tests.unit.loop.helpers import loader, make_loop

ROWS = torch.arange(10.0).unsqueeze(1)  # with batches of 4 the last one has 2


class Identity(nn.Module):
    """Gives back what it gets; its weight, 1, does not move: the learning rate is 0."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, inputs):
        return inputs * self.weight


def loop_of(*metrics, arrays=(ROWS, ROWS + 1), val=None, loss=None, named=None):
    model = Identity()
    step = TorchStep(torch.optim.SGD(model.parameters(), lr=0.0))
    parts = [ZeroGrad(), Forward(), TorchLoss(loss or nn.L1Loss()), Backward(), step]
    train = TensorLoader(*arrays, batch_size=4)
    return FitLoop(model, train, val, callbacks=[*parts, Metrics(named or metrics), Validate()])


def test_loss_is_the_mean_over_samples():
    targets = ROWS + torch.tensor([1.0] * 8 + [6.0] * 2).unsqueeze(1)
    history = loop_of(arrays=(ROWS, targets)).fit(epochs=1)
    assert history["loss"] == [2.0]  # the mean of the three batch means would be 2.67


def test_keras_metric_by_its_name():
    history = loop_of(keras.metrics.MeanAbsoluteError(name="mae")).fit(epochs=2)
    assert history["mae"] == [1.0, 1.0]


def test_torchmetrics_by_class_name_and_own_name():
    history = loop_of(torchmetrics.MeanSquaredError()).fit(epochs=1)
    assert history["mean_squared_error"] == [1.0]
    history = loop_of(named={"mse": torchmetrics.MeanSquaredError()}).fit(epochs=1)
    assert history["mse"] == [1.0]


def test_metrics_are_reset_at_the_start_of_each_pass():
    loop = loop_of(keras.metrics.MeanMetricWrapper(lambda y, p: p, name="mean"))
    assert loop.fit(epochs=3)["mean"] == [4.5] * 3


def test_sample_weights_reach_keras_metrics_and_the_loss():
    weights = torch.tensor([2.0] * 4 + [0.0] * 6)
    loop = loop_of(
        keras.metrics.MeanAbsoluteError(name="mae"),
        arrays=(ROWS, ROWS * 2, weights),
        loss=nn.L1Loss(reduction="none"),
    )
    history = loop.fit(epochs=1)
    assert history["mae"] == [1.5]
    assert history["loss"] == [pytest.approx(2 * (0 + 1 + 2 + 3) / 10)]


def test_validation_has_its_prefix_and_loaders_their_names():
    val = {"near": TensorLoader(ROWS, ROWS + 1), "far": TensorLoader(ROWS, ROWS + 5)}
    history = loop_of(val=val).fit(epochs=1)
    assert history["val_near_loss"] == [1.0]
    assert history["val_far_loss"] == [5.0]
    loop = loop_of(val=TensorLoader(ROWS, ROWS + 3))
    assert loop.fit(epochs=1)["val_loss"] == [3.0]
    assert loop.evaluate() == {"loss": 3.0}
    assert loop.evaluate(val) == {"near_loss": 1.0, "far_loss": 5.0}


class Errors(torchmetrics.Metric):
    """Keeps a list of tensors, one per batch."""

    def __init__(self):
        super().__init__()
        self.add_state("errors", default=[], dist_reduce_fx="cat")

    def update(self, outputs, targets):
        self.errors.append((outputs - targets).abs())

    def compute(self):
        return torch.cat(self.errors).sum()


@pytest.mark.parametrize(
    "metric",
    [
        lambda: keras.metrics.MeanAbsoluteError(name="error"),
        lambda: torchmetrics.MeanAbsoluteError(),
        Errors,
    ],
    ids=["keras", "torchmetrics", "list state"],
)
def test_inner_pass_leaves_the_training_values_untouched(metric):
    def logged(validates):
        loop = loop_of(named={"error": metric()}, val=TensorLoader(ROWS, ROWS + 9))
        if validates:
            loop.on(Event.BATCH_END)(lambda state: state.request(Event.VALIDATE))
        loop.fit(epochs=1)
        return {k: v for k, v in loop.state.logs.items() if not k.startswith("val_")}

    assert logged(True) == logged(False)


def test_result_with_several_values():
    class Both(keras.metrics.Metric):
        def __init__(self):
            super().__init__(name="both")
            self.total = self.add_weight(name="total", initializer="zeros")

        def update_state(self, y_true, y_pred, sample_weight=None):
            self.total.assign_add(keras.ops.sum(y_pred))

        def result(self):
            return {"once": self.total, "twice": [self.total, self.total * 2]}

    loop_logs = loop_of(Both()).fit(epochs=1).rows[0]
    assert loop_logs["both_once"] == 45.0
    assert [loop_logs["both_twice_0"], loop_logs["both_twice_1"]] == [45.0, 90.0]


def test_a_step_does_not_read_the_device(monkeypatch):
    loop, reads = loop_of(keras.metrics.MeanAbsoluteError(name="mae")), []
    original = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda self: reads.append(1) or original(self))
    loop.fit(epochs=2)
    assert len(reads) == 2  # once per pass, whatever the number of metrics and batches


def test_callbacks_can_log_beside():
    loop = make_loop(val=loader())
    loop.on(Event.LOSS_READY, phases=["train", "val"])(
        lambda state: state.log("twice", state.loss * 2)
    )
    row = loop.fit(epochs=1).rows[0]
    assert row["twice"] == pytest.approx(2 * row["loss"], rel=1e-6)
    assert row["val_twice"] == pytest.approx(2 * row["val_loss"], rel=1e-6)


def test_a_sum_of_ints_may_become_one_of_floats():
    class Half(torchmetrics.Metric):
        def __init__(self):
            super().__init__()
            self.add_state("total", torch.tensor(0))

        def update(self, outputs, targets):
            self.total = self.total + 0.5

        def compute(self):
            return self.total

    assert loop_of(Half()).fit(epochs=2)["half"] == [1.5, 1.5]


def test_a_wrapper_of_torchmetrics_keeps_its_values_over_a_validation_in_mid_pass():
    def run(validate):
        torch.manual_seed(0)
        model = nn.Linear(1, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        metric = {"mse": torchmetrics.MinMaxMetric(torchmetrics.MeanSquaredError())}
        stack = supervised(
            loss=nn.MSELoss(), optimizer=optimizer, metrics=metric, validate=validate
        )
        x = torch.arange(8.0)[:, None]
        val = TensorLoader(x + 100, x, batch_size=4)
        loop = FitLoop(model, TensorLoader(x, x, batch_size=2), val, callbacks=stack)
        return {k: v for k, v in loop.fit(epochs=1).rows[0].items() if not k.startswith("val_")}

    assert run(validate=2) == run(validate="9 epochs")


def test_metrics_of_a_turn_log_nothing_in_validation():
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = torch.ones(4, 1)
    train, forward, loss = TrainMode(), Forward(), TorchLoss(nn.MSELoss())
    turn = Turn("only", [ZeroGrad(), Backward(), TorchStep(optimizer), Metrics()])
    loop = FitLoop(model, TensorLoader(x, x), TensorLoader(x, x))
    loop.attach(train, forward, loss, turn, Validate())
    row = loop.fit(epochs=1).rows[0]
    assert "only_loss" in row
    assert not [name for name in row if name.startswith("val_")]
