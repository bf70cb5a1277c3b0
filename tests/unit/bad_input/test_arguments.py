"""Mistakes in numbers, models and devices given to the loop."""

import sys

import keras
import numpy as np
import pytest
import torch
from torch import nn

from fitkit import ConfigError, DeviceError, FitLoop, TensorLoader, Turn, Validate, supervised
from fitkit.loop import setup
from tests.unit.bad_input.mistakes import X, loop_of, refused, stack

NO_COUNT = [0, -1, 1.5, True, float("nan"), "3", [3]]


@pytest.mark.parametrize("value", NO_COUNT)
@pytest.mark.parametrize("argument", ["epochs", "max_steps"])
def test_a_count_out_of_range(argument, value):
    loop = loop_of()
    tokens = [f"{argument}={value!r}", type(value).__name__, "at least 1"]
    with refused(ConfigError, *tokens, model=loop.model):
        loop.fit(**{argument: value})
    assert loop.state.num_batches == 0


@pytest.mark.parametrize("value", [0, -1.0, True, float("nan"), float("inf"), "3", [3]])
def test_a_time_out_of_range(value):
    loop = loop_of()
    with refused(ConfigError, f"max_time={value!r}", "above 0", "seconds", model=loop.model):
        loop.fit(max_time=value)


def test_a_numpy_count_is_a_count():
    assert loop_of().fit(epochs=np.int64(1)).rows[-1]["num_updates"] == 8


@pytest.mark.parametrize("value", [*NO_COUNT, "1 week", "0 epochs", "1.5 epochs", None])
def test_an_interval_out_of_range(value):
    with refused(ConfigError, f"every={value!r}", "positive int", "1 epoch"):
        Validate(every=value)


@pytest.mark.parametrize("value", NO_COUNT)
def test_every_of_a_turn_or_a_batch_size_out_of_range(value):
    with refused(ConfigError, f"every={value!r}", "at least 1"):
        Turn("critic", [], every=value)
    with refused(ConfigError, f"batch_size={value!r}", "at least 1"):
        TensorLoader(X, batch_size=value)


def test_no_limit_at_all():
    loop = loop_of()
    with refused(ConfigError, "epochs", "max_steps", "max_time", model=loop.model):
        loop.fit()


def test_no_train_loader():
    model = nn.Linear(4, 1)
    loop = FitLoop(model, callbacks=stack(model))
    with refused(ConfigError, "train_loader", "FitLoop(model, train_loader)", model=model):
        loop.fit(epochs=1)


def test_nothing_to_evaluate_on():
    with refused(ConfigError, "val_loader"):
        loop_of().evaluate()


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        (nn.Linear, "the class Linear"),
        (keras.Sequential, "the class Sequential"),
        (lambda x: x, "function"),
        (None, "NoneType"),
        (nn.Linear(1, 1).state_dict(), "OrderedDict"),
        ("resnet18", "str"),
    ],
)
def test_the_model_is_no_model(model, kind):
    with refused(TypeError, kind, "keras.Model", "torch.nn.Module"):
        FitLoop(model)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch.compile's own import
def test_the_model_is_a_compiled_function():
    with refused(TypeError, "function", "torch.nn.Module"):
        FitLoop(torch.compile(lambda x: x))


def test_keras_runs_on_another_backend(monkeypatch):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    with refused(ConfigError, "'jax'", "KERAS_BACKEND", "before the first import of keras"):
        FitLoop(model)
    FitLoop(nn.Linear(1, 1))  # has nothing to do with it


def test_the_backend_of_keras_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras", None)  # importing it raises, as without tensorflow
    with refused(ConfigError, "no module 'keras'", "KERAS_BACKEND"):
        supervised(loss="mse", optimizer=torch.optim.SGD(nn.Linear(1, 1).parameters()))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__(name="mine")
        self.first = keras.layers.Dense(3)
        self.dropout = keras.layers.Dropout(0.5)  # has a seed: one variable from the start
        self.second = keras.layers.Dense(1)

    def call(self, x):
        return self.second(self.dropout(self.first(x)))


def half_built():
    model = Subclassed()
    model.first.build((None, 4))
    return model


@pytest.mark.parametrize(
    ("make", "tokens"),
    [
        (Subclassed, ["'mine'", "dense"]),
        (half_built, ["'mine'", "dense"]),
        (lambda: keras.Sequential([keras.layers.Dense(1)], name="net"), ["'net'", "dense"]),
        (lambda: keras.layers.Dense(1, name="only"), ["'only'"]),
    ],
)
def test_a_keras_model_is_not_built(make, tokens):
    with refused(ConfigError, "not built", "build(input_shape)", "keras.Input", *tokens):
        FitLoop(make())


def test_a_keras_model_that_was_called_is_built():
    model = Subclassed()
    model(torch.ones(1, 4))
    FitLoop(model)


def test_a_lazy_torch_module():
    model = nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 1))
    with refused(ConfigError, "2 lazy parameters", "'0.weight'", "once on a batch"):
        FitLoop(model)


def test_a_torch_module_with_a_keras_layer_that_is_not_built():
    model = nn.Sequential(nn.Linear(4, 3), keras.layers.Dense(1, name="head"))
    with refused(ConfigError, "1 Keras layers of Sequential", "'head'", "once on a batch"):
        FitLoop(model)
    model(torch.ones(1, 4))
    FitLoop(model)


def test_that_the_check_of_built_models_is_what_refuses(monkeypatch):
    monkeypatch.setattr(setup, "_unbuilt_layers", lambda model: [])
    FitLoop(half_built())


@pytest.mark.parametrize(
    ("model", "tokens"),
    [
        (nn.Flatten(), ["0 parameters", "none"]),
        (nn.Linear(4, 1).requires_grad_(False), ["2 parameters, 0 of them", "weight, bias"]),
    ],
)
def test_nothing_is_trainable(model, tokens):
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters())
    loop = FitLoop(model, TensorLoader(X, X))
    with refused(ConfigError, "nothing to train", *tokens, model=model):
        loop.fit(epochs=1)
    assert optimizer.state == {}


def test_a_frozen_keras_model():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, name="only")])
    model.trainable = False
    with refused(ConfigError, "2 parameters, 0 of them", "kernel", model=model):
        FitLoop(model, TensorLoader(X, X)).fit(epochs=1)


@pytest.mark.parametrize("device", ["cuda:7", "gpu", "cuda:", "meta", None, 3.5])
def test_a_device_that_does_not_exist(device):
    model = nn.Linear(4, 1)
    count = torch.cuda.device_count()
    with refused(DeviceError, repr(device), f"{count} CUDA devices", '"auto"', model=model):
        FitLoop(model, device=device)


def test_a_keras_model_is_wanted_elsewhere(monkeypatch):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    monkeypatch.setattr(setup, "_available", lambda device: torch.device("cuda:0"))
    with refused(ConfigError, "cuda:0", "cpu", "KERAS_TORCH_DEVICE", model=model):
        FitLoop(model, device="cuda:0")
