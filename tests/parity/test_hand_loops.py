"""The hand-written loops themselves: they learn, repeat, and their timed form is the same loop."""

import keras
import numpy as np
import pytest

from tests.parity import hand_loops as hand
from tests.parity.digits import digit_loaders, keras_mlp, penalised_mlp, torch_mlp


def metrics(model, train, val, epochs):
    return hand.keras_form(model, train, val, epochs=epochs)


def added_losses(model, train, val, epochs):
    return hand.keras_form(model, train, val, epochs=epochs, added_losses=True)


def without_val(form):
    return lambda model, train, val, epochs: form(model, train, epochs=epochs)


FORMS = {
    "torch": (keras_mlp, without_val(hand.torch_form)),
    "keras": (keras_mlp, without_val(hand.keras_form)),
    "metrics": (keras_mlp, metrics),
    "added losses": (penalised_mlp, added_losses),
    "keras model, torch SGD": (keras_mlp, without_val(hand.keras_model_torch_sgd)),
    "torch model, Keras Adam": (torch_mlp, without_val(hand.torch_model_keras_adam)),
    "torch model, fused Adam": (torch_mlp, without_val(hand.torch_model_fused_adam)),
}


def run(name, epochs=2):
    make_model, form = FORMS[name]
    keras.utils.set_random_seed(1)
    return form(make_model(), *digit_loaders(300, 75), epochs)


@pytest.mark.parametrize("name", FORMS)
def test_form_learns_and_repeats_to_the_bit(name):
    first, second = run(name), run(name)
    assert first.epochs == second.epochs
    assert all(map(np.array_equal, first.weights, second.weights))
    assert first.epochs[1]["loss"] < first.epochs[0]["loss"] < np.inf


def test_added_losses_are_three_and_count():
    model = penalised_mlp()
    (inputs, _), *_ = digit_loaders(32, 1)[0]
    model(inputs)
    assert len(model.losses) == 3
    assert all(float(loss.detach()) > 0 for loss in model.losses)


def test_timed_steps_are_the_metrics_form():
    expected = run("metrics", epochs=1)
    keras.utils.set_random_seed(1)
    model, lines = keras_mlp(), []
    train, _ = digit_loaders(300, 75)
    hand.metrics_loop_steps(model, train, report=lines.append)(len(train))
    assert all(map(np.array_equal, expected.weights, hand.weights_of(model)))
    assert lines[-1] == f"accuracy {expected.epochs[0]['accuracy']:.4f}"


def test_keras_variable_shares_a_torch_parameter():
    model = torch_mlp()
    variables = hand.shared_variables(model)
    model(digit_loaders(8, 1)[0].dataset.tensors[0]).sum().backward()
    for variable, parameter in zip(variables, model.parameters(), strict=True):
        assert variable.value is parameter
        assert variable.value.grad is parameter.grad
        variable.assign(variable + 1)
        assert variable.value.data_ptr() == parameter.data_ptr()
