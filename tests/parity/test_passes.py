"""Validation leaves training as it was; evaluate and predict give what a loop by hand gives."""

import keras
import numpy as np
import torch
from torch import nn

from fitkit import Event, FitLoop, Phase, Validate, supervised
from tests.parity import hand_loops as hand
from tests.parity import ours
from tests.parity.digits import keras_mlp, keras_noisy_mlp


def noisy_loop(*callbacks, val):
    """A model with Dropout and BatchNormalization, which a validation could disturb in many ways.

    TensorLoaders: the iterator of a DataLoader draws a seed from the global generator.
    """
    keras.utils.set_random_seed(1)
    train, val_loader = ours.tensor_loaders()
    stack = supervised(
        loss=ours.keras_crossentropy(), optimizer=ours.keras_adam(), metrics=[ours.accuracy()]
    )
    return FitLoop(
        keras_noisy_mlp(), train, val_loader if val else None, callbacks=[*stack[:-1], *callbacks]
    )


def test_validation_in_mid_pass_changes_nothing():
    without = noisy_loop(val=False)
    without.fit(epochs=2)
    loop, passes = noisy_loop(Validate(every=7), val=True), []
    loop.on(Event.PASS_END, phases=[Phase.VAL])(lambda state: passes.append(state.num_updates))
    loop.fit(epochs=2)
    assert passes == [7, 14]  # both in mid-pass: a pass has 10 batches
    assert ours.same_weights(ours.state_of(loop.model), ours.state_of(without.model))
    for name in ("loss", "accuracy", "lr"):
        assert loop.history[name] == without.history[name]


def test_mid_pass_values_are_those_of_the_weights_at_that_update():
    loop, weights = noisy_loop(Validate(every=7), val=True), []

    @loop.on(Event.PASS_END, phases=[Phase.VAL])
    def keep(state):
        weights.append(ours.state_of(state.model))

    loop.fit(max_steps=8)
    values = {name: loop.state.logs[name] for name in ("val_loss", "val_accuracy")}
    for variable, value in zip(loop.model.variables, weights[0], strict=True):
        variable.assign(value)
    assert {f"val_{name}": value for name, value in loop.evaluate().items()} == values


def test_evaluate():
    model, train, val = ours.seeded(keras_mlp, 300, 75)
    stack = supervised(
        loss=ours.keras_crossentropy(), optimizer=ours.keras_adam(), metrics=[ours.accuracy()]
    )
    loop = FitLoop(model, train, val, callbacks=stack)
    loop.fit(epochs=1)
    before = dict(loop.state.logs), hand.weights_of(model)
    evaluated = loop.evaluate()
    by_hand = hand.validate(model, val, hand.keras_loss(), added_losses=False)
    assert evaluated["accuracy"] == by_hand["val_accuracy"]
    assert abs(evaluated["loss"] - by_hand["val_loss"]) <= 1e-12 * by_hand["val_loss"]
    assert loop.state.logs == before[0]
    assert ours.same_weights(hand.weights_of(model), before[1])


def test_predict():
    model, _, val = ours.seeded(keras_noisy_mlp, 300, 75)
    stack = supervised(loss=nn.CrossEntropyLoss(), optimizer=ours.keras_adam())
    predicted = FitLoop(model, callbacks=stack).predict(val)
    with torch.no_grad():
        by_hand = np.concatenate([model(x, training=False).numpy() for x, _ in val])
    assert predicted.shape == (75, 10)
    assert np.array_equal(predicted, by_hand)
    x = val.dataset.tensors[0].numpy()
    np.testing.assert_allclose(predicted, model.predict(x, verbose=0), rtol=1e-5, atol=1e-5)
