"""The learning rates that are drawn over the updates."""

import keras
import pytest
import torch

from fitkit import FitLoop, TensorLoader, supervised
from fitkit.watch.rates import kept, rates_of


@pytest.fixture
def floatx():
    before = keras.config.floatx()
    yield keras.config.set_floatx
    keras.config.set_floatx(before)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_the_rate_of_keras_is_that_of_now(floatx, dtype):
    floatx(dtype)
    optimizer = keras.optimizers.SGD(0.5)
    floatx("float32")
    loop = FitLoop(torch.nn.Linear(4, 1), TensorLoader(torch.randn(8, 4), torch.randn(8, 1)))
    loop.attach(supervised(loss=torch.nn.MSELoss(), optimizer=optimizer))
    rate = rates_of(loop).of_step["lr"]
    assert float(rate()) == 0.5
    optimizer.learning_rate.assign(0.25)
    assert float(rate()) == 0.25


def test_a_tensor_is_read_as_it_is_now():
    rate = torch.tensor(0.5)
    read = kept(lambda: rate)
    first = read()
    rate *= 2
    second = read()
    rate.data *= 2  # not counted as a write
    assert (first, second, read()) == (0.5, 1.0, 2.0)
    rate = torch.tensor(0.25)
    assert read() == 0.25


def test_the_rate_of_torch_is_that_of_groups_that_were_loaded():
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    loop = FitLoop(model, TensorLoader(torch.randn(8, 4), torch.randn(8, 1)))
    loop.attach(supervised(loss=torch.nn.MSELoss(), optimizer=optimizer))
    rate = rates_of(loop).of_host["lr"]
    optimizer.load_state_dict(torch.optim.SGD(model.parameters(), lr=0.25).state_dict())
    assert rate() == 0.25
