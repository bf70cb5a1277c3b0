"""fitkit computes what the loops written by hand compute: weights to the bit, logs to 1e-12."""

import keras
import pytest
import torch
from torch import nn

from fitkit import TorchLoss, TorchStep
from tests.parity import hand_loops as hand
from tests.parity import ours
from tests.parity.digits import digit_loaders, keras_mlp, penalised_mlp, torch_mlp

EPOCHS = 4  # of 50 batches, the last one ragged: 200 steps


# -- the four forms of the guide -------------------------------------------------------------------


def test_torch_loss_and_optimizer():
    model, train, _ = ours.seeded(keras_mlp)
    by_hand = hand.torch_form(model, train, epochs=EPOCHS)
    model, train, _ = ours.seeded(keras_mlp)
    optimizer = torch.optim.Adam(model.parameters(), lr=hand.LEARNING_RATE)
    mine = ours.fit(model, train, epochs=EPOCHS, loss=nn.CrossEntropyLoss(), optimizer=optimizer)
    ours.assert_same(mine, by_hand)


def test_keras_loss_and_optimizer():
    by_hand = hand.keras_form(*ours.seeded(keras_mlp)[:2], epochs=EPOCHS)
    ours.assert_same(ours.fit(*ours.seeded(keras_mlp)[:2], epochs=EPOCHS), by_hand)


def test_metrics_and_validation():
    by_hand = hand.keras_form(*ours.seeded(keras_mlp), epochs=EPOCHS)
    mine = ours.fit(*ours.seeded(keras_mlp), epochs=EPOCHS, metrics=[ours.accuracy()])
    assert mine.epochs[0].keys() == {"loss", "accuracy", "val_loss", "val_accuracy"}
    ours.assert_same(mine, by_hand)


def test_two_added_losses_and_a_regularizer():
    by_hand = hand.keras_form(*ours.seeded(penalised_mlp), epochs=EPOCHS, added_losses=True)
    mine = ours.fit(*ours.seeded(penalised_mlp), epochs=EPOCHS, metrics=[ours.accuracy()])
    ours.assert_same(mine, by_hand)
    without = hand.keras_form(*ours.seeded(penalised_mlp), epochs=EPOCHS)
    assert not ours.same_weights(mine.weights, without.weights)


def test_tensor_loader_feeds_both():
    keras.utils.set_random_seed(1)
    by_hand = hand.keras_form(keras_mlp(), *ours.tensor_loaders(), epochs=3)
    keras.utils.set_random_seed(1)
    mine = ours.fit(keras_mlp(), *ours.tensor_loaders(), epochs=3, metrics=[ours.accuracy()])
    ours.assert_same(mine, by_hand)


# -- every mix of model, loss and optimizer --------------------------------------------------------


class SubclassedMLP(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden = keras.layers.Dense(64, activation="relu")
        self.logits = keras.layers.Dense(10)

    def call(self, inputs):
        return self.logits(self.hidden(inputs))


def subclassed_mlp():
    model = SubclassedMLP()
    model(torch.zeros(1, 784))  # builds it
    return model


def sequential_mlp():
    dense = keras.layers.Dense
    return keras.Sequential([keras.Input((784,)), dense(64, activation="relu"), dense(10)])


MODELS = {
    "functional": keras_mlp,
    "Sequential": sequential_mlp,
    "subclassed": subclassed_mlp,
    "torch": torch_mlp,
}
LOSSES = {  # what fitkit gets; what the hand loop calls with (targets, logits)
    "Keras loss": (ours.keras_crossentropy, hand.keras_loss),
    "torch loss": (ours.torch_crossentropy, hand.torch_loss),
}
OPTIMIZERS = {
    "Keras Adam": lambda model: ours.keras_adam(),
    "torch SGD": lambda model: torch.optim.SGD(model.parameters(), lr=1e-5, momentum=0.9),
    "torch Adam": lambda model: torch.optim.Adam(model.parameters(), lr=1e-3),
    "fused Adam": lambda model: torch.optim.Adam(model.parameters(), lr=1e-3, fused=True),
}


def update_by_hand(model, optimizer):
    if isinstance(optimizer, torch.optim.Optimizer):
        return hand.torch_update(model, optimizer)
    is_torch = not isinstance(model, keras.Model)
    return hand.keras_update(model, optimizer, hand.shared_variables(model) if is_torch else None)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("make_model", MODELS)
def test_mix(make_model, loss, optimizer):
    for_fitkit, for_hand = LOSSES[loss]
    model, train, _ = ours.seeded(MODELS[make_model], 300)
    first_weights = hand.weights_of(model)
    update = update_by_hand(model, OPTIMIZERS[optimizer](model))
    by_hand = hand.hand_loop(model, train, epochs=2, loss_of=for_hand(), update=update)
    model, train, _ = ours.seeded(MODELS[make_model], 300)
    mine = ours.fit(
        model, train, epochs=2, loss=for_fitkit(), optimizer=OPTIMIZERS[optimizer](model)
    )
    ours.assert_same(mine, by_hand)
    assert not ours.same_weights(mine.weights, first_weights)


# -- what must make the tests above fail -----------------------------------------------------------


def test_swapped_arguments_of_the_loss_show():
    model, train, _ = ours.seeded(torch_mlp, 300)
    by_hand = hand.torch_model_fused_adam(model, train, epochs=1)
    for swapped in (False, True):
        model, train, _ = ours.seeded(torch_mlp, 300)
        loss_fn = hand.torch_loss() if swapped else nn.CrossEntropyLoss()
        optimizer = torch.optim.Adam(model.parameters(), lr=hand.LEARNING_RATE, fused=True)
        mine = ours.fit(
            model, train, epochs=1, loss=TorchLoss(loss_fn), optimizer=TorchStep(optimizer)
        )
        assert ours.same_weights(mine.weights, by_hand.weights) is not swapped


def test_another_order_of_the_batches_shows():
    by_hand = hand.keras_form(*ours.seeded(keras_mlp, 300)[:2], epochs=1)
    model, _, _ = ours.seeded(keras_mlp, 300)
    torch.manual_seed(2)
    mine = ours.fit(model, digit_loaders(300)[0], epochs=1)
    assert not ours.same_weights(mine.weights, by_hand.weights)
