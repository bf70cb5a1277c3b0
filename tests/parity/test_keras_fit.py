"""What `model.fit`, `evaluate` and `predict` give, `compiled()` gives: to the bit, by name."""

import keras
import numpy as np
import pytest

from fitkit import Callback, ClassWeights, FitLoop, Phase, Record, TensorLoader, compiled
from tests.parity import own_steps  # noqa: F401  # adds its cases
from tests.parity.compiled_cases import BATCH_SIZE, CASES, NUM_TRAIN
from tests.parity.ours import same_weights, state_of

EPOCHS = 3


def part(structure, rows):
    return keras.tree.map_structure(lambda array: array[rows], structure)


def halves(case):
    """Arrays for training and for validation: (x, y) or (x, y, weights)."""
    arrays = (case.x, case.y) if case.weight is None else (case.x, case.y, case.weight)
    return part(arrays, slice(NUM_TRAIN)), part(arrays, slice(NUM_TRAIN, None))


class KerasReseed(keras.callbacks.Callback):
    """`fit` draws random numbers that no step asked for; from here on both sides draw the same."""

    epoch = 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if batch == 0:
            keras.utils.set_random_seed(self.epoch)


class Reseed(Callback):
    phases = frozenset({Phase.TRAIN})

    def on_batch_begin(self, state):
        if state.batch_index == 0:
            keras.utils.set_random_seed(state.epoch)


def seeded(name):
    keras.utils.set_random_seed(7)
    return CASES[name]()


def by_keras(name):
    """The case, trained by `fit`, with its logs per epoch."""
    case = seeded(name)
    (x, y, *weight), val = halves(case)
    history = case.model.fit(
        *(x, y),
        **{"sample_weight": weight[0] if weight else None, "class_weight": case.class_weight},
        **{"batch_size": BATCH_SIZE, "validation_batch_size": BATCH_SIZE, "shuffle": False},
        **{"validation_data": val, "epochs": EPOCHS, "callbacks": [KerasReseed()], "verbose": 0},
    )
    logs = history.history
    return case, [{key: logs[key][epoch] for key in logs} for epoch in range(EPOCHS)]


def loaders(case):
    train, val = (TensorLoader(*arrays, batch_size=BATCH_SIZE) for arrays in halves(case))
    return ClassWeights(train, case.class_weight) if case.class_weight else train, val


def by_fitkit(name, *more):
    """The case, trained by a loop, with the loop."""
    case = seeded(name)
    loop = FitLoop(case.model, *loaders(case), callbacks=[compiled(), Reseed(), *more])
    loop.fit(epochs=EPOCHS)
    return case, loop


def assert_same_logs(ours, theirs):
    assert set(ours) - {"epoch", "num_updates", "lr"} == set(theirs)
    for key, value in theirs.items():
        assert ours[key] == pytest.approx(float(value), rel=1e-6, abs=1e-7), key


# These show once more, in another form, what a case beside them shows.
AGAIN = {
    *("dict_outputs_of_a_subclass", "loss_by_class_name", "loss_in_a_list"),
    *("loss_weights_in_a_list", "sparse_crossentropy", "weighted_metrics_without_weights"),
    *("adam", "adam_amsgrad", "sgd_nesterov", "clipnorm", "clipvalue", "lion"),
    *("gaussian_noise", "activity_regularizer", "mixed_float16_unscaled"),
    *("sample_weight_as_column", "sample_weight_for_all_outputs", "own_train_step_with_dropout"),
}


def cases(quick):
    """All cases, those that are not quick for `pytest -m slow` only."""
    return [pytest.param(name, marks=() if name in quick else pytest.mark.slow) for name in CASES]


def test_the_cases_of_every_run_are_many():
    assert CASES.keys() >= AGAIN | QUICK
    assert len(CASES.keys() - AGAIN) >= 50


@pytest.mark.filterwarnings("ignore:Gradients do not exist")  # where one output has no loss
@pytest.mark.parametrize("name", cases(CASES.keys() - AGAIN))
def test_fit_evaluate_and_predict_are_those_of_keras(name):
    theirs, logs = by_keras(name)
    ours, loop = by_fitkit(name)
    assert same_weights(state_of(ours.model), state_of(theirs.model))
    assert len(loop.history.rows) == EPOCHS
    for row, expected in zip(loop.history.rows, logs, strict=True):
        assert_same_logs(row, expected)
    _, val = halves(ours)
    evaluated = dict(zip(("x", "y", "sample_weight"), val, strict=False))
    expected = theirs.model.evaluate(
        **evaluated, batch_size=BATCH_SIZE, return_dict=True, verbose=0
    )
    assert_same_logs(loop.evaluate(), expected)
    keras.tree.map_structure(
        np.testing.assert_array_equal,
        loop.predict(TensorLoader(val[0], batch_size=BATCH_SIZE)),
        theirs.model.predict(val[0], batch_size=BATCH_SIZE, verbose=0),
    )


# Refused as a whole or in part: these run eagerly, and say why.
REASONS = {
    "seeded_dropout": "reads the value of a tensor on the host",
    "counts_and_areas": "the shape of a result depends on the values",
    "train_step_of_the_base": "publishes a host value",
}
# Keras's SGD adds with alpha=tensor, which a recorded step multiplies first: another rounding.
TO_ROUNDING = {
    "ema_overwrite",
    "sgd_momentum",
    "sgd_nesterov",
    "clipnorm",
    "clipvalue",
    "loss_scale_factor",
}
QUICK = {
    *("batch_normalization", "add_loss", "adamw_with_schedule"),  # more in tests/record_matrix
    *("own_train_step", "own_compute_metrics", *REASONS),
}


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
@pytest.mark.filterwarnings("ignore:Record runs")  # the reasons are looked at below
@pytest.mark.parametrize("name", cases(QUICK))
def test_a_recorded_run_equals_the_eager_one_or_says_why_not(name):
    eager, loop = by_fitkit(name)
    recorded, other = by_fitkit(name, Record("interpret"))
    close = {"rtol": 1e-5, "atol": 1e-6} if name in TO_ROUNDING else {"rtol": 0, "atol": 0}
    for ours, theirs in zip(state_of(recorded.model), state_of(eager.model), strict=True):
        np.testing.assert_allclose(ours, theirs, **close)
    for row, expected in zip(other.history.rows, loop.history.rows, strict=True):
        assert row == pytest.approx(expected, rel=1e-5 if name in TO_ROUNDING else 1e-6)
    assert REASONS.get(name, "") in other.record_report()
