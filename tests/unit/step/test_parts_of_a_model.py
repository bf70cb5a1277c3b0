"""Backward and KerasApply for a part of the loop's model."""

import keras
import pytest
import torch

from fitkit import (
    Backward,
    ConfigError,
    FitLoop,
    Forward,
    KerasApply,
    KerasLoss,
    Metrics,
    TensorLoader,
    TrainMode,
    ZeroGrad,
)


class Halves(torch.nn.Module):
    """A torch layer in front of a Keras model."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(4, 3)
        self.second = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)], name="second")

    def forward(self, inputs):
        return self.second(self.first(inputs))


def trained(part, backward):
    keras.utils.set_random_seed(0)
    model = Halves()
    before = [p.detach().clone() for p in model.parameters()]
    loop = FitLoop(model, TensorLoader(torch.randn(16, 4), torch.randn(16, 1), batch_size=8))
    apply = KerasApply(keras.optimizers.SGD(0.1), model=getattr(model, part))
    given = [Backward(getattr(model, part)) if backward else Backward(), apply]
    loop.attach(TrainMode(), ZeroGrad(), Forward(), KerasLoss("mse"), *given, Metrics())
    row = loop.fit(epochs=1).rows[0]
    same = [torch.equal(*pair) for pair in zip(before, model.parameters(), strict=True)]
    return model, row, same


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize(("part", "same"), [("first", [0, 0, 1, 1]), ("second", [1, 1, 0, 0])])
def test_only_the_part_is_updated(part, same, backward):
    _, row, found = trained(part, backward)
    assert found == [bool(each) for each in same]
    assert row["lr_second" if part == "second" else "lr_Linear"] == pytest.approx(0.1)


def test_only_the_part_gets_gradients():
    model, _, _ = trained("first", backward=True)
    assert all(p.grad is not None for p in model.first.parameters())
    assert all(p.grad is None for p in model.second.parameters())


def test_a_frozen_weight_of_the_part_gets_none():
    model = Halves()
    model.first.bias.requires_grad_(False)
    loop = FitLoop(model, TensorLoader(torch.randn(8, 4), torch.randn(8, 1)))
    apply = KerasApply(keras.optimizers.SGD(0.1), model=model.first)
    loop.attach(ZeroGrad(), Forward(), KerasLoss("mse"), Backward(model.first), apply)
    loop.fit(epochs=1)
    assert model.first.bias.grad is None
    assert model.first.weight.grad is not None


def test_a_part_of_another_model_is_refused():
    model, other = Halves(), Halves()
    loop = FitLoop(model, TensorLoader(torch.randn(8, 4), torch.randn(8, 1)))
    apply = KerasApply(keras.optimizers.SGD(0.1), model=other.second)
    loop.attach(ZeroGrad(), Forward(), KerasLoss("mse"), Backward(), apply)
    with pytest.raises(ConfigError, match="2 parameters that are not of the loop's model"):
        loop.fit(epochs=1)
