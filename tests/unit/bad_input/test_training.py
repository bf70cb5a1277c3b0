"""Mistakes that show while training: optimizers, losses, modes, logs, nested runs."""

import keras
import pytest
import torch
import torchmetrics
from torch import nn

from fitkit import (
    Backward,
    Callback,
    ConfigError,
    DataError,
    DeviceError,
    Event,
    FitLoop,
    Forward,
    KerasApply,
    KerasLoss,
    Metrics,
    TensorLoader,
    TorchLoss,
    TorchStep,
    ZeroGrad,
    supervised,
)
from fitkit.passes import model_watch
from tests.unit.bad_input.mistakes import X, Y, batches, check_message, loop_of, refused, stack


def keras_model():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, name="only")])


@pytest.mark.parametrize(
    ("names", "first"),
    [(False, "param_groups[0]['params'][0]"), (True, "'weight'")],
)
def test_the_optimizer_holds_other_parameters(names, first):
    model, other = nn.Linear(4, 1), nn.Linear(4, 1)
    held = other.named_parameters() if names else other.parameters()
    callbacks = supervised(loss=nn.MSELoss(), optimizer=torch.optim.SGD(held, lr=0.1))
    loop = FitLoop(model, batches(X, Y), callbacks=callbacks)
    tokens = ["2 parameters that are not the model's", first, "(1, 4)", "'weight'"]
    with refused(ConfigError, *tokens, model=model, loader=loop.train_loader):
        loop.fit(epochs=1)


def test_the_keras_optimizer_was_built_for_another_model():
    optimizer = keras.optimizers.SGD()
    optimizer.build(keras_model().trainable_variables)
    model = keras_model()
    loop = FitLoop(model, batches(X, Y), callbacks=supervised(loss="mse", optimizer=optimizer))
    tokens = ["2 of the model's 2", "only/kernel", "Make a new optimizer"]
    with refused(ConfigError, *tokens, model=model, loader=loop.train_loader):
        loop.fit(epochs=1)


def test_the_optimizer_leaves_out_parameters():
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD([model.weight], lr=0.1)
    loop = FitLoop(model, batches(X, Y))
    loop.attach(supervised(loss=nn.MSELoss(), optimizer=optimizer))
    with pytest.warns(UserWarning, match="leaves out 1") as caught:
        loop.fit(epochs=2)
    assert len(caught) == 1
    check_message(str(caught[0].message), "leaves out 1", "bias", "freeze them")


@pytest.mark.parametrize(
    ("make", "tokens"),
    [
        (lambda: TorchStep(torch.optim.Adam), ["the class Adam", "torch.optim.Optimizer"]),
        (lambda: TorchStep(keras.optimizers.Adam()), ["Adam", "torch.optim.Optimizer"]),
        (lambda: KerasApply(keras.optimizers.Adam), ["the class Adam", "keras.optimizers"]),
        (lambda: KerasApply(3), ["3", "keras.optimizers.Optimizer"]),
        (lambda: TorchLoss(nn.MSELoss), ["MSELoss", "nn.CrossEntropyLoss()"]),
        (lambda: KerasLoss(keras.losses.MeanSquaredError), ["MeanSquaredError", "losses.Loss"]),
        (lambda: KerasLoss(None), ["None", "keras.losses.Loss"]),
        (lambda: Metrics([keras.metrics.Mean]), ["the class Mean", "keras.metrics.Metric"]),
        (lambda: Metrics(["accuracy"]), ["'accuracy'", "keras.metrics"]),
        (lambda: supervised(loss="mse", optimizer=torch.optim.SGD), ["the class SGD"]),
        (lambda: supervised(loss="mse", optimizer=keras.optimizers.SGD), ["the class SGD"]),
        (lambda: supervised(loss=nn.MSELoss, optimizer="sgd"), ["MSELoss", "instance"]),
        (lambda: supervised(loss=None, optimizer="sgd"), ["NoneType", "expected a loss"]),
    ],
)
def test_a_class_or_a_wrong_kind_for_an_instance(make, tokens):
    with refused(TypeError, *tokens):
        make()


def test_it_is_unclear_in_which_order_a_loss_takes_its_arguments():
    with refused(ConfigError, "KerasLoss(f)", "TorchLoss(f)"):
        supervised(loss=lambda a, b: a, optimizer="sgd")


@pytest.mark.parametrize(
    ("make", "tokens"),
    [
        (
            lambda: KerasLoss("mean_squared_eror"),
            ["loss", "'mean_squared_eror'", "'mean_squared_error'"],
        ),
        (lambda: KerasLoss("CategoricalCrosentropy"), ["CategoricalCrossentropy"]),
        (lambda: KerasApply("adamm"), ["optimizer", "'adamm'", "Adam"]),
        (lambda: KerasLoss("x" * 200), ["'xxx"]),
    ],
)
def test_a_name_keras_does_not_know(make, tokens):
    with refused(ConfigError, "nearest", "keras", *tokens):
        make()


LOSSES = [
    (lambda o, t: (o - t).square(), ["Tensor[8, 1] float32", "expected shape ()", ".mean()"]),
    (lambda o, t: (o - t).square().mean().item(), ["float", "expected a tensor", ".item()"]),
    (lambda o, t: None, ["NoneType", "expected a tensor"]),
    (lambda o, t: (o - t).square().mean().detach(), ["no gradient function", ".detach()"]),
    (lambda o, t: (o.argmax(1) - t[:, 0]).square().mean(), ["no gradient function", "argmax"]),
]


@pytest.mark.parametrize(("function", "tokens"), LOSSES)
def test_a_loss_nothing_can_be_learned_from(function, tokens):
    loop = loop_of(loader=batches(X, Y), loss=TorchLoss(function))
    tokens = ["batch 0", "epoch 0", "0 updates", *tokens]
    with refused(DataError, *tokens, model=loop.model, loader=loop.train_loader):
        loop.fit(epochs=1)


@pytest.mark.parametrize(
    ("write", "tokens"),
    [
        (lambda state: state.outputs.sum(), ["not set", "what a hook returns is not used"]),
        (lambda state: setattr(state, "loss", 0.5), ["float", "expected a tensor"]),
        (lambda state: setattr(state, "loss", state.outputs), ["[8, 1]", "mean()"]),
        (lambda state: setattr(state, "loss", state.outputs.detach().sum()), ["no gradient"]),
    ],
)
def test_a_hook_that_fills_loss_with_something_else(write, tokens):
    class Fills(Callback):
        def on_loss(self, state):
            return write(state)

    model = nn.Linear(4, 1)
    step = TorchStep(torch.optim.SGD(model.parameters(), lr=0.1))
    loop = FitLoop(model, batches(X, Y))
    loop.attach(ZeroGrad(), Forward(), Fills(), Backward(), step)
    kind = ConfigError if "not set" in tokens else DataError
    with refused(kind, "batch 0", *tokens, model=model, loader=loop.train_loader):
        loop.fit(epochs=1)


def test_an_error_within_the_backward_pass_stays_what_it_is():
    class Breaks(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            raise RuntimeError("mine")

    loop = loop_of(loss=TorchLoss(lambda outputs, targets: Breaks.apply(outputs).mean()))
    with pytest.raises(RuntimeError, match="mine"):
        loop.fit(epochs=1)


def test_a_number_as_loss_with_sample_weights():
    loop = loop_of(loader=batches(X, Y, Y[:, 0]), loss=TorchLoss(lambda o, t: 1.0))
    with refused(DataError, "float", "expected a tensor", model=loop.model):
        loop.fit(epochs=1)


def test_sample_weights_with_a_reduced_loss():
    loop = loop_of(loader=batches(X, Y, Y[:, 0]))
    with refused(ConfigError, "sample weights", 'reduction="none"', model=loop.model):
        loop.fit(epochs=1)


def test_training_in_inference_mode():
    loop = loop_of(loader=batches(X, Y))
    tokens = ["torch.inference_mode()", "Tensor[] float32", "leave that mode"]
    with (
        torch.inference_mode(),
        refused(DataError, *tokens, model=loop.model, loader=loop.train_loader),
    ):
        loop.fit(epochs=1)


def trained(**surroundings):
    torch.manual_seed(0)
    loop = loop_of(nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 1)))
    loop.fit(epochs=1)
    return loop.model


def test_a_model_left_in_eval_mode_is_trained_and_given_back_so():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 1)).eval()
    loop_of(model).fit(epochs=1)
    assert not any(module.training for module in model.modules())
    assert torch.equal(model[0].weight, trained()[0].weight)  # the same dropout was drawn


def test_gradients_switched_off_globally():
    with torch.no_grad():
        model = trained()
        assert not torch.is_grad_enabled()
    assert torch.equal(model[0].weight, trained()[0].weight)


def test_another_default_dtype():
    expected = trained()[0].weight
    torch.manual_seed(0)
    loop = loop_of(nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 1)))
    torch.set_default_dtype(torch.float64)
    try:
        logs = loop.fit(epochs=1).rows[-1]
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(loop.model[0].weight, expected)
    assert logs["loss"] > 0


@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled:UserWarning")  # torch's own
def test_anomaly_mode_left_on():
    loop = loop_of()
    with torch.autograd.detect_anomaly(), pytest.warns(UserWarning, match="anomaly") as caught:
        loop.fit(epochs=2)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    check_message(str(caught[0].message), "anomaly mode is on", "set_detect_anomaly(False)")


class PutsIntoEval(Callback):
    def on_batch_end(self, state):
        state.model.eval()


class Freezes(Callback):
    def on_batch_end(self, state):
        state.model.weight.requires_grad_(False)


class Looks(Callback):
    def on_batch_end(self, state):
        state.logs["looks"] = 1.0


@pytest.mark.parametrize(
    ("culprit", "flag"),
    [(PutsIntoEval, "train mode of 'Linear'"), (Freezes, "requires_grad of 'weight'")],
)
def test_a_callback_switches_the_model_in_mid_run(culprit, flag):
    loop = loop_of().attach(Looks(), culprit())
    with pytest.warns(UserWarning, match="in the middle of a training pass") as caught:
        loop.fit(epochs=3)
    assert len(caught) == 1
    check_message(str(caught[0].message), flag, f"likely changed by: {culprit.__name__}.")


def test_a_function_switches_the_model_in_mid_run():
    loop = loop_of()

    @loop.on(Event.BATCH_END)
    def sleepy(state):
        state.model.eval()

    with pytest.warns(UserWarning, match="likely changed by: sleepy") as caught:
        loop.fit(epochs=1)
    assert len(caught) == 1


def test_that_the_comparison_of_flags_is_what_warns(monkeypatch):
    monkeypatch.setattr(model_watch.ModelWatch, "_read", lambda self: iter(()))
    loop_of().attach(PutsIntoEval()).fit(epochs=1)  # a warning would be an error


def test_switching_at_the_beginning_of_a_pass_is_meant():
    class Meant(Callback):
        def on_pass_begin(self, state):
            state.model.eval()

        def on_epoch_begin(self, state):
            state.model.bias.requires_grad_(state.epoch == 0)

    loop = loop_of(val_loader=TensorLoader(X, Y)).attach(Meant())
    loop.fit(epochs=2)
    assert loop.model.training


class Logs(Callback):
    def __init__(self, name, value, event="on_update_metrics"):
        self.name, self.value, self.event = name, value, event

    def on_update_metrics(self, state):
        state.log(self.name, self.value(state))


@pytest.mark.parametrize(
    ("kind", "name", "value", "tokens"),
    [
        (TypeError, "x", lambda state: 1.0, ["float", "state.logs"]),
        (TypeError, "x", lambda state: state.outputs, ["(8, 1)", "expected shape ()"]),
        (TypeError, 3, lambda state: state.loss, ["int", "name"]),
        (TypeError, "", lambda state: state.loss, ["''", "name"]),
        (ConfigError, "epoch", lambda state: state.loss, ["'epoch'", "reserved"]),
        (ConfigError, "lr", lambda state: state.loss, ["'lr'", "reserved"]),
        (ConfigError, "val_x", lambda state: state.loss, ["'val_x'", "reserved"]),
        (ConfigError, "loss", lambda state: state.loss, ["'loss'", "Metrics", "Logs.on_update"]),
    ],
)
@pytest.mark.parametrize("place", [0, 9])
def test_what_cannot_be_logged(kind, name, value, tokens, place):
    model = nn.Linear(4, 1)
    callbacks = list(stack(model))
    callbacks.insert(place, Logs(name, value))
    loop = FitLoop(model, batches(X, Y), callbacks=callbacks)
    with pytest.raises(kind) as caught:
        loop.fit(epochs=1)
    check_message(str(caught.value), *tokens)
    assert loop.train_loader.taken == 1


def test_a_metric_and_a_callback_log_one_name():
    model = nn.Linear(4, 1)
    metric = keras.metrics.MeanSquaredError(name="error")
    loop = FitLoop(model, batches(X, Y), callbacks=stack(model, metrics=[metric]))

    @loop.on(Event.BATCH_END)
    def mine(state):
        state.log("error", state.loss, reduce="last")

    with refused(ConfigError, "'error'", "Metrics.on_pass_end", "mine"):
        loop.fit(epochs=1)


def test_two_functions_log_one_name():
    loop = loop_of()

    @loop.on(Event.BATCH_END)
    def first(state):
        state.log("x", state.loss)

    @loop.on(Event.BATCH_END)
    def second(state):
        state.log("x", state.loss)

    with refused(ConfigError, "'x'", "first", "second"):
        loop.fit(epochs=1)


def times(factor):
    return lambda state: state.log("x", factor * state.loss)


@pytest.mark.parametrize("event", [Event.UPDATE_METRICS, Event.BATCH_END])
def test_two_closures_of_one_function_log_one_name(event):
    loop = loop_of()
    loop.on(event)(times(2))
    loop.on(event)(times(3))
    with refused(ConfigError, "'x'", "times.<locals>.<lambda> (test_training.py:"):
        loop.fit(epochs=1)


def test_two_callbacks_of_one_class_log_one_name():
    value = {"value": lambda state: state.loss}
    loop = loop_of().attach(Logs("x", **value), Logs("x", **value))
    with refused(ConfigError, "'x'", "Logs.on_update_metrics"):
        loop.fit(epochs=1)
    assert "y" in loop_of().attach(Logs("x", **value), Logs("y", **value)).fit(epochs=1)


def test_one_callback_may_log_a_name_in_several_places():
    class Both(Callback):
        def on_loss_ready(self, state):
            state.log("x", state.loss.detach() * 0 + 1)

        def on_update_metrics(self, state):
            self.more(state)

        def more(self, state):
            state.log("x", state.loss * 0 + 3)

    assert loop_of().attach(Both()).fit(epochs=1)["x"] == [2.0]


def test_one_callback_logs_a_name_in_training_and_in_validation():
    loop = loop_of(val_loader=TensorLoader(X, Y)).attach(Logs("x", lambda state: state.loss))
    history = loop.fit(epochs=2)
    assert len(history["x"]) == len(history["val_x"]) == 2


def test_a_logged_tensor_holds_no_graph():
    loop = loop_of().attach(Logs("x", lambda state: state.outputs.mean()))
    seen = []
    loop.on(Event.BATCH_END)(lambda state: seen.append(state.step_values["x"]))
    history = loop.fit(epochs=1)
    assert len(seen) == 8
    assert not any(value.requires_grad for value in seen)
    assert history["x"] == [pytest.approx(sum(map(float, seen)) / 8)]


def test_metrics_that_are_no_list():
    for metrics in (keras.metrics.MeanSquaredError(), torchmetrics.MeanSquaredError(), "mae", 3):
        with refused(TypeError, "metrics=", "is no list", "Put it into a list"):
            Metrics(metrics)


def test_two_metrics_of_one_name():
    named = keras.metrics.MeanSquaredError(name="error")
    with refused(ConfigError, "'error'", "metrics[0]", "metrics[1]"):
        Metrics([named, keras.metrics.MeanAbsoluteError(name="error")])
    with refused(ConfigError, "'loss'", "the loss itself"):
        Metrics({"loss": named})


def test_the_state_of_a_metric_is_elsewhere():
    metric = keras.metrics.MeanSquaredError(name="error")
    model = nn.Linear(4, 1)
    loop = FitLoop(model, batches(X, Y), callbacks=stack(model, metrics=[metric]))
    for variable in metric.variables:
        variable._value = variable.value.to("meta")
    tokens = ["'error'", "meta", "cpu", "KERAS_TORCH_DEVICE"]
    with refused(DeviceError, *tokens, model=model, loader=loop.train_loader):
        loop.fit(epochs=1)


@pytest.mark.parametrize("event", [Event.EPOCH_BEGIN, Event.BATCH_END, Event.VALIDATE])
def test_fit_inside_a_callback(event):
    loop = loop_of(val_loader=TensorLoader(X, Y))
    loop.on(event)(lambda state: loop.fit(epochs=1))
    with pytest.raises(RuntimeError) as caught:
        loop.fit(epochs=1)
    assert type(caught.value) is RuntimeError
    place = "train pass" if event is Event.BATCH_END else "epoch 0"
    check_message(str(caught.value), "fit() was called while fit()", place)


def test_fit_inside_evaluate():
    loop = loop_of(val_loader=TensorLoader(X, Y))
    loop.on(Event.BATCH_END, phases=["val"])(lambda state: loop.fit(epochs=1))
    with pytest.raises(RuntimeError) as caught:
        loop.evaluate()
    check_message(str(caught.value), "while evaluate()", "val pass")


def test_a_field_is_read_before_it_is_written():
    loop = loop_of()
    loop.on(Event.BATCH_BEGIN)(lambda state: state.outputs)
    with pytest.raises(AttributeError) as caught:
        loop.fit(epochs=1)
    check_message(str(caught.value), "state.outputs", "FORWARD", "on_forward or later")


def test_something_else_than_validate_or_save_is_requested():
    loop = loop_of()
    loop.on(Event.BATCH_END)(lambda state: state.request(Event.FORWARD))
    with refused(ConfigError, "FORWARD", "VALIDATE and SAVE"):
        loop.fit(epochs=1)
