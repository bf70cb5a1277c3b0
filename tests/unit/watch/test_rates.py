"""The learning rates that are drawn over the updates."""

import keras
import pytest
import torch

from fitkit import FitLoop, TensorLoader, supervised
from fitkit.watch.rates import rates_of


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
    rate = rates_of(loop)["lr"]
    assert float(rate()) == 0.5
    optimizer.learning_rate.assign(0.25)
    assert float(rate()) == 0.25
