"""The stack for a compiled model: what is chosen, what is refused, what Keras does around steps."""

import itertools

import keras
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from fitkit import (
    Callback,
    CallbackOrderError,
    CompiledRun,
    ConfigError,
    DataError,
    FitLoop,
    Metrics,
    Phase,
    Record,
    TensorLoader,
    compiled,
)
from tests.parity.ours import same_weights, state_of
from tests.unit.bad_input.mistakes import check_message

X, Y = np.ones((10, 4), "float32"), np.ones((10, 1), "float32")
BATCHES = TensorLoader(X, Y, batch_size=4)


def dense(base=keras.Model, units=1):
    inputs = keras.Input((4,))
    return base(inputs, keras.layers.Dense(units)(inputs))


def made(base=keras.Model, **options):
    model = dense(base)
    model.compile(**{"optimizer": "sgd", "loss": "mse", "metrics": ["mae"], **options})
    return model


def looped(model, train=BATCHES, val=None, **options):
    return FitLoop(model, train, val, callbacks=[compiled()], **options)


def names(loop, phase=None):
    callbacks = [c for c in loop.callbacks if phase is None or phase in c.phases]
    found = [type(c).__name__ for c in callbacks]
    return [name for name in found if name not in ("History", "OutputCollector")]


class Steps(keras.Model):
    def train_step(self, data):
        return {"seen": torch.tensor(float(len(data)))}

    def predict_step(self, data):
        return self(data[0])


def test_a_plain_model_gets_its_actions():
    assert names(looped(made())) == [
        *("CompiledRun", "TrainMode", "ZeroGrad", "Forward", "CompiledLoss", "Backward"),
        *("KerasApply", "CompiledMetrics", "Validate"),
    ]


def test_own_steps_take_the_place_of_the_actions_they_fill():
    loop = looped(made(Steps))
    assert names(loop, Phase.TRAIN) == ["CompiledRun", "TrainMode", "TrainStep", "Validate"]
    actions = ["Forward", "CompiledLoss", "CompiledMetrics"]
    assert names(loop, Phase.VAL) == ["CompiledRun", "TrainMode", *actions]
    assert names(loop, Phase.PREDICT) == ["CompiledRun", "TrainMode", "PredictStep"]


def test_a_step_of_the_instance_counts():
    model = made()
    model.train_step = lambda data: {"mine": torch.tensor(3.0)}
    assert looped(model).fit(epochs=1)["mine"] == [3.0]


def test_the_stack_can_be_given_whole_and_not_spread():
    assert FitLoop(made(), BATCHES, callbacks=compiled()).fit(epochs=1)["loss"][0] > 0
    with pytest.raises(ConfigError, match="depends on the model"):
        [*compiled()]


def test_validation_every_so_many_updates():
    seen = []
    loop = FitLoop(made(), BATCHES, BATCHES, callbacks=compiled(validate=2))

    class Count(Callback):
        phases = frozenset({Phase.VAL})

        def on_pass_begin(self, state):
            seen.append(state.num_updates)

    loop.attach(Count()).fit(epochs=2)
    assert seen == [2, 4, 6]


def test_validation_in_mid_pass_leaves_the_training_values_alone():
    def trained(**options):
        keras.utils.set_random_seed(0)
        model = made(weighted_metrics=["mse"])
        loop = FitLoop(model, TensorLoader(X, Y * 2, batch_size=3), BATCHES)
        return loop.attach(compiled(**options)).fit(epochs=2)

    every, once = trained(validate=1), trained()
    for name in ("loss", "mae", "mse"):
        assert every[name] == once[name]


def test_evaluate_leaves_no_trace():
    loop = looped(made())
    loop.fit(epochs=1)
    before = dict(loop.state.logs)
    assert loop.evaluate(BATCHES) == loop.evaluate(BATCHES)
    assert loop.state.logs == before


@pytest.mark.parametrize("loader", ["generator", "DataLoader", "list"])
def test_loaders_of_every_kind_give_what_keras_gives(loader):
    model = made()
    batches = [(torch.tensor(X[i : i + 4]), torch.tensor(Y[i : i + 4])) for i in (0, 4, 8)]
    given = {
        "generator": lambda: (batch for batch in batches),
        "DataLoader": lambda: DataLoader(TensorDataset(torch.tensor(X), torch.tensor(Y)), 4),
        "list": lambda: batches,
    }[loader]
    expected = model.evaluate(X, Y, batch_size=4, verbose=0, return_dict=True)
    assert looped(model).evaluate(given()) == pytest.approx(expected, rel=1e-6)
    assert np.array_equal(looped(model).predict(given()), model.predict(X, verbose=0, batch_size=4))


def test_averaged_weights_are_in_place_after_fit_only():
    optimizer = keras.optimizers.SGD(0.01, use_ema=True, ema_momentum=0.5)
    loop, seen = looped(made(optimizer=optimizer)), []

    class Look(Callback):
        def on_epoch_end(self, state):
            seen.append(state.model.weights[0].value.detach().clone())

    loop.attach(Look()).fit(epochs=1)
    assert not torch.equal(seen[0], loop.model.weights[0].value)


def test_the_mode_of_the_model_is_put_back():
    model = made()
    looped(model).fit(epochs=1)
    assert model.training


def test_passes_run_where_the_model_is_whatever_device_keras_would_take():
    loop = looped(made(optimizer="adam"), BATCHES, BATCHES)
    with keras.device("meta"):
        assert loop.fit(epochs=1)["val_mae"][0] > 0
        assert loop.predict(BATCHES).shape == (10, 1)


@pytest.mark.filterwarnings("ignore:.*jit_compile")
@pytest.mark.parametrize("option", [{"jit_compile": True}, {"steps_per_execution": 4}])
def test_options_that_need_record(option):
    loop = looped(made(**option))
    with pytest.raises(ConfigError, match="Attach Record"):
        loop.fit(epochs=1)
    assert loop.attach(Record("interpret")).fit(epochs=1)["loss"][0] > 0


def test_a_model_compiled_again():
    model = made()
    loop = looped(model)
    model.compile("adam", "mae")
    with pytest.raises(ConfigError, match="compiled again"):
        loop.fit(epochs=1)


def test_no_optimizer_evaluates_and_does_not_train():
    loop = looped(made(optimizer=None))
    assert loop.evaluate(BATCHES)["loss"] > 0
    with pytest.raises(CallbackOrderError, match="nothing fills ZERO_GRAD"):
        loop.fit(epochs=1)


def test_a_model_that_is_not_compiled():
    with pytest.raises(ConfigError, match="is not compiled"):
        looped(dense())


def test_a_model_that_is_not_built():
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(ConfigError, match="is not built"):
        looped(model)


def test_a_torch_module():
    with pytest.raises(TypeError, match="expected a keras.Model"):
        looped(torch.nn.Linear(4, 1))


def test_a_train_function_of_its_own():
    class Own(keras.Model):
        def make_train_function(self, force=False):
            raise AssertionError

    with pytest.raises(ConfigError, match="Override train_step instead"):
        looped(made(Own))


def test_an_optimizer_of_another_model():
    optimizer = keras.optimizers.SGD()
    optimizer.build(dense().trainable_variables)
    with pytest.raises(ConfigError, match="built for other variables"):
        looped(made(optimizer=optimizer)).fit(epochs=1)


def test_a_keras_callback_given_straight():
    with pytest.raises(TypeError, match=r"KerasCallbacks\(\["):
        looped(made()).attach(keras.callbacks.EarlyStopping())


def two_heads(loss="mse"):
    inputs = keras.Input((4,))
    heads = {name: keras.layers.Dense(1, name=name)(inputs) for name in ("a", "b")}
    model = keras.Model(inputs, heads)
    model.compile("sgd", loss)
    return model


@pytest.mark.parametrize(
    ("keys", "loss", "message"),
    [
        (("a", "c"), "mse", "'c' is no output"),
        (("a",), "mse", "'b' is missing"),
        (("b",), {"a": "mse", "b": None}, "'a' is missing"),
    ],
)
def test_targets_of_wrong_names(keys, loss, message):
    loop = looped(two_heads(loss), TensorLoader(X, dict.fromkeys(keys, Y)))
    with pytest.raises(DataError, match=message):
        loop.fit(epochs=1)


def test_weights_of_wrong_names():
    targets = {"a": Y, "b": Y}
    loop = looped(two_heads(), TensorLoader(X, targets, {"d": Y[:, 0]}))
    with pytest.raises(DataError, match="'d' is no output"):
        loop.fit(epochs=1)


@pytest.mark.parametrize("shape", [(10, 3), (10, 2, 1)])
def test_weights_of_a_wrong_shape(shape):
    loop = looped(made(), TensorLoader(X, Y, np.ones(shape, "float32")))
    with pytest.raises(DataError, match=r"shape \(10,\)"):
        loop.fit(epochs=1)


def test_targets_that_do_not_fit():
    loop = looped(made(), TensorLoader(X, np.ones((10, 3), "float32")))
    with pytest.raises(DataError, match="one shape expected"):
        loop.fit(epochs=1)


def test_no_targets():
    with pytest.raises(DataError, match="has no targets"):
        looped(made(), TensorLoader(X)).fit(epochs=1)


def test_an_unknown_loss():
    with pytest.raises(ConfigError, match="Keras knows no loss named"):
        looped(made(loss="mean_sqared_error")).fit(epochs=1)


def test_a_step_that_returns_no_dict():
    model = made()
    model.train_step = lambda data: 3
    with pytest.raises(DataError, match="expected a dict of logs"):
        looped(model).fit(epochs=1)


def test_a_callback_that_needs_outputs_a_whole_step_keeps():
    class Needs(Callback):
        needs = frozenset({"outputs"})

    with pytest.raises(ConfigError, match="needs the outputs"):
        looped(made(Steps)).attach(Needs()).fit(epochs=1)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("run", ["fit", "evaluate"])
def test_metrics_beside_compiled(run, first):
    model = made()
    stack = [Metrics(), compiled()] if first else [compiled(), Metrics()]
    loop = FitLoop(model, BATCHES, BATCHES, callbacks=stack)
    before = [array.copy() for array in state_of(model)]
    with pytest.raises(
        ConfigError, match=r"compiled\(\), and Metrics(.|\n)*model\.compile"
    ) as caught:
        loop.fit(epochs=1) if run == "fit" else loop.evaluate()
    check_message(str(caught.value), "CompiledRun", "supervised(")
    assert same_weights(state_of(model), before)


def test_that_the_check_is_what_refuses_metrics_beside_compiled(monkeypatch):
    monkeypatch.setattr(CompiledRun, "on_open", Callback.on_open)
    loop = FitLoop(made(), BATCHES, callbacks=[compiled(), Metrics()])
    with pytest.raises(ConfigError, match="is logged"):  # a riddle to whoever gave Metrics
        loop.fit(epochs=1)


def test_a_listener_to_a_moment_that_a_whole_step_swallows():
    class Clip(Callback):
        def on_grads_ready(self, state): ...

    with pytest.raises(CallbackOrderError, match="GRADS_READY, which never fires"):
        looped(made(Steps)).attach(Clip()).fit(epochs=1)


def test_a_step_gets_the_batch_as_the_loader_gives_it_or_as_a_callback_changed_it():
    model, given = made(), []
    model.train_step = lambda data: given.append(data) or {}
    batches = [[torch.ones(2, 4), torch.ones(2, 1)]]
    looped(model, batches).fit(epochs=1)
    assert type(given[0]) is list

    class Change(Callback):
        def on_batch_begin(self, state):
            state.inputs = state.inputs * 2

    looped(model, batches).attach(Change()).fit(epochs=1)
    assert type(given[1]) is tuple
    assert given[1][0].sum() == 16
    looped(model, batches, unpack=lambda batch: (batch[1], None, None)).fit(epochs=1)
    assert len(given[2]) == 1


def test_the_equivalents_of_validation_freq_and_initial_epoch():
    model = made()
    loop = FitLoop(model, BATCHES, BATCHES, callbacks=compiled(validate="2 epochs"))
    loop.state.epoch = 3
    history = loop.fit(epochs=4)
    assert [row["epoch"] for row in history.rows] == [3, 4, 5, 6]
    assert ["val_loss" in row for row in history.rows] == [False, True, False, True]
    assert model.optimizer.iterations.value == 12


class Endless:
    """So many batches of an iterator that goes on in the next epoch."""

    def __init__(self, batches, count):
        self.batches, self.count = batches, count

    def __iter__(self):
        return itertools.islice(self.batches, self.count)


def test_the_equivalent_of_steps_per_epoch():
    def batches():
        for i in itertools.count():
            yield X[:4] * (i % 5), Y[:4]

    keras.utils.set_random_seed(0)
    theirs = made()
    expected = theirs.fit(batches(), steps_per_epoch=3, epochs=2, shuffle=False, verbose=0).history
    keras.utils.set_random_seed(0)
    ours = made()
    history = looped(ours, Endless(batches(), 3)).fit(epochs=2)
    assert history["loss"] == pytest.approx(expected["loss"], rel=1e-6)
    assert torch.equal(ours.weights[0].value, theirs.weights[0].value)


def test_a_validation_by_actions_leaves_a_recorded_train_step_valid():
    loop = FitLoop(made(Steps), BATCHES, BATCHES, callbacks=[compiled(), Record("interpret")])
    loop.fit(epochs=3)
    assert loop.record_report().count("train, batch of 4") == 1
