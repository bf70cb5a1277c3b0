"""Which optimizer is applied in which turn, and who sees it."""

import keras
import pytest
import torch

from fitkit import (
    Callback,
    ConfigError,
    FitLoop,
    TensorLoader,
    TorchStep,
    Turn,
    compiled,
    supervised,
)
from fitkit.loop.applied import applied_optimizers, turn_of
from fitkit.tune.held_optimizer import held_optimizer
from fitkit.tune.optimizers import optimizers_beside
from fitkit.watch.rates import rates_of


def sgd(rate=0.1):
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=rate)


def loop_of(*callbacks, model=None):
    data = TensorLoader(torch.zeros(8, 4), torch.zeros(8, 1))
    return FitLoop(model or torch.nn.Linear(4, 1), data, callbacks=callbacks)


def test_outside_of_turns():
    optimizer = sgd()
    loop = loop_of(*supervised(loss=torch.nn.MSELoss(), optimizer=optimizer))
    assert applied_optimizers(loop) == {None: optimizer}
    assert held_optimizer(loop, None, "Test") == (optimizer, None)
    assert list(rates_of(loop).of_host) == ["lr"]
    assert applied_optimizers(loop_of(Callback())) == {}


def test_a_compiled_model_holds_its_own():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    loop = loop_of(compiled(), model=model)
    assert applied_optimizers(loop) == {None: model.optimizer}


def test_one_per_turn():
    one, other, within, beside = sgd(), sgd(), Callback(), Callback()
    loop = loop_of(Turn("a", [TorchStep(one), within]), Turn("b", [TorchStep(other)]), beside)
    assert applied_optimizers(loop) == {"a": one, "b": other}
    assert held_optimizer(loop, other, "Test") == (other, "b")
    assert list(rates_of(loop).of_host) == ["lr_a", "lr_b"]
    assert (turn_of(loop, within), turn_of(loop, beside)) == ("a", None)
    assert optimizers_beside(loop, within) == [one]
    assert optimizers_beside(loop, beside) == [one, other]
    with pytest.raises(ConfigError, match="found 2 optimizers in the loop"):
        held_optimizer(loop, None, "Test")


def test_one_of_two_turns_is_one_optimizer_and_seen_in_both():
    shared, first, second = sgd(), Callback(), Callback()
    turns = Turn("a", [TorchStep(shared), first]), Turn("b", [TorchStep(shared), second])
    loop = loop_of(*turns)
    assert held_optimizer(loop, None, "Test")[0] is shared
    assert optimizers_beside(loop, first) == optimizers_beside(loop, second) == [shared]
