"""A torch module that holds Keras layers: they add to the loss, and must be told of training."""

import keras
import pytest
import torch
from torch import nn

from fitkit import FitLoop, TensorLoader, supervised


class Holder(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.head = nn.Linear(3, 1)

    def forward(self, x):
        return self.head(self.layer(x))


def built(layer):
    layer.build((None, 4))
    return layer


def run(model):
    x = torch.randn(32, 4, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loop = FitLoop(model, TensorLoader(x, x[:, :1], batch_size=8))
    loop.attach(supervised(loss=nn.MSELoss(), optimizer=optimizer))
    loop.fit(epochs=2)
    return loop, x


def test_a_regularizer_of_a_keras_layer_is_part_of_the_loss():
    def make():
        keras.utils.set_random_seed(0)
        return Holder(built(keras.layers.Dense(3, kernel_regularizer=keras.regularizers.L2(0.1))))

    loop, x = run(make())
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        for batch in x.split(8):
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(batch), batch[:, :1])
            (loss + 0.1 * model.layer.kernel.value.square().sum()).backward()
            optimizer.step()
    for ours, theirs in zip(loop.model.parameters(), model.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_a_layer_that_is_not_told_of_training_is_named():
    with pytest.warns(UserWarning, match=r"must be told of training.*\n.*training=self.training"):
        run(Holder(built(keras.Sequential([keras.layers.Dense(3), keras.layers.Dropout(0.5)]))))


def test_layers_that_do_not_ask_are_left_in_peace():
    run(Holder(built(keras.layers.Dense(3))))  # a warning would be an error
