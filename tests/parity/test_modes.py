"""Dropout and batch normalization act differently in training: by hand and by fitkit."""

import keras
import pytest
import torch
from torch import nn

from fitkit import FitLoop, supervised
from tests.parity import hand_loops as hand
from tests.parity import ours
from tests.parity.digits import keras_noisy_mlp, torch_noisy_mlp


def noisy_by_hand(model, train, val, epochs):
    """The loop with the mode set as it must be: `training=` for Keras, `train()` for torch."""
    is_keras = isinstance(model, keras.Model)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
    loss_fn, rows = nn.CrossEntropyLoss(), []
    for _ in range(epochs):
        logged = {}
        for prefix, loader, training in (("", train, True), ("val_", val, False)):
            model.train(training)
            seen = []
            for inputs, targets in loader:
                with torch.set_grad_enabled(training):
                    logits = model(inputs, training=training) if is_keras else model(inputs)
                    loss = loss_fn(logits, targets)
                if training:
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                seen.append((loss.detach(), len(targets)))
            logged[f"{prefix}loss"] = hand.weighted_mean(seen)
        rows.append(logged)
    return hand.HandRun(ours.state_of(model), rows)


def noisy_by_fitkit(model, train, val, epochs, change=lambda stack: stack):
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
    stack = change(list(supervised(loss=nn.CrossEntropyLoss(), optimizer=optimizer)))
    history = FitLoop(model, train, val, callbacks=stack).fit(epochs=epochs)
    rows = [{name: row[name] for name in ("loss", "val_loss")} for row in history.rows]
    return hand.HandRun(ours.state_of(model), rows)


NOISY = {"keras": keras_noisy_mlp, "torch": torch_noisy_mlp}


@pytest.mark.parametrize("kind", NOISY)
def test_dropout_and_batch_norm(kind):
    by_hand = noisy_by_hand(*ours.seeded(NOISY[kind], 300, 75), epochs=3)
    ours.assert_same(noisy_by_fitkit(*ours.seeded(NOISY[kind], 300, 75), epochs=3), by_hand)


# -- what must make the test above fail ------------------------------------------------------------


def test_leaving_out_the_train_mode_shows():
    def prepared():
        model, *loaders = ours.seeded(torch_noisy_mlp, 300, 75)
        return model.eval(), *loaders

    by_hand = noisy_by_hand(*prepared(), epochs=1)
    ours.assert_same(noisy_by_fitkit(*prepared(), epochs=1), by_hand)
    broken = noisy_by_fitkit(*prepared(), epochs=1, change=lambda stack: stack[1:])
    assert not ours.same_weights(broken.weights, by_hand.weights)


def test_leaving_out_the_training_argument_shows(monkeypatch):
    by_hand = noisy_by_hand(*ours.seeded(keras_noisy_mlp, 300, 75), epochs=1)
    monkeypatch.setattr("fitkit.step.forward.ignores_training", lambda model: True)
    broken = noisy_by_fitkit(*ours.seeded(keras_noisy_mlp, 300, 75), epochs=1)
    assert not ours.same_weights(broken.weights, by_hand.weights)
