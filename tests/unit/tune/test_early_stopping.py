"""EarlyStopping stops where a loop written by hand would, says why, and keeps the best weights."""

import keras
import pytest
import torch

from fitkit import Callback, ConfigError, EarlyStopping, Event, KerasCallbacks, Phase, Validate
from tests.unit.tune.trainings import TRAININGS, batches, loop_of, weights_of

NAN = float("nan")


class Scripted(Callback):
    """Log the given values at the end of the epochs, in front of EarlyStopping."""

    def __init__(self, values, name="score"):
        self.values, self.name = values, name

    def on_epoch_end(self, state):
        state.logs[self.name] = self.values[state.epoch]


def stopped_after(values, **options):
    """How many epochs run, and the callback."""
    stopping = EarlyStopping("score", **{"mode": "min", **options})
    loop = loop_of("torch", Scripted(values), stopping, val=False)
    loop.fit(epochs=len(values))
    return loop.state.epoch + loop.state.stop - loop.state.stop, stopping, loop


@pytest.mark.parametrize(
    ("values", "options", "epochs", "best"),
    [
        ([3.0, 2.0, 2.0, 2.0, 1.0], {"patience": 2}, 4, 2.0),
        ([3.0, 2.0, 2.0, 1.0, 1.0, 1.0], {"patience": 2}, 6, 1.0),
        ([1.0, 2.0, 2.0, 3.0, 3.0, 3.0], {"patience": 2, "mode": "max"}, 6, 3.0),
        ([3.0, 2.95, 2.92, 2.5], {"patience": 2, "min_delta": 0.1}, 3, 3.0),
        ([NAN, NAN, 1.0, NAN, NAN, NAN], {"patience": 3}, 6, 1.0),
        ([NAN, NAN, 1.0], {"patience": 2}, 2, None),
        ([5.0, 4.0, 3.0, 2.0], {"patience": 2, "baseline": 1.0}, 2, 4.0),
        ([5.0, 0.5, 3.0, 2.0], {"patience": 2, "baseline": 1.0}, 4, 0.5),
    ],
)
def test_it_stops_when_it_should(values, options, epochs, best):
    _, stopping, loop = stopped_after(values, **options)
    assert loop.state.num_epochs == epochs
    assert stopping.best == best
    assert loop.state.stop_reason is not None


def test_it_stops_where_keras_does():
    values = [3.0, 2.0, 2.5, 1.9, 1.95, 1.85, 1.9, 1.88, 1.87, 1.0]
    theirs = keras.callbacks.EarlyStopping("score", patience=3, min_delta=0.05, mode="min")
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    theirs.set_model(model)
    theirs.on_train_begin()
    model.stop_training = False
    for epoch, value in enumerate(values):
        theirs.on_epoch_end(epoch, {"score": value})
        if model.stop_training:
            break
    _, ours, loop = stopped_after(values, patience=3, min_delta=0.05)
    assert (loop.state.num_epochs - 1, ours.best) == (theirs.stopped_epoch, float(theirs.best))


@pytest.mark.parametrize(
    ("values", "options", "reason"),
    [
        ([1.0, 2.0, 2.0], {}, "score was not below 1 (epoch 0) in the last 2 looks"),
        ([1.0, 0.5, 0.4], {"mode": "max"}, "score was not above 1 (epoch 0) in the last 2 looks"),
        ([1.0, 0.9], {"baseline": 0.5}, "score was not below the baseline 0.5 in the last 2 looks"),
        ([NAN, NAN], {}, "score was nan 2 times in a row"),
        ([1.0, 0.99, 0.98], {"min_delta": 0.1}, "not below 1 (epoch 0) by 0.1 in the last 2 looks"),
    ],
)
def test_the_reason_is_kept(values, options, reason):
    _, _, loop = stopped_after(values, patience=2, **options)
    assert reason in loop.state.stop_reason


@pytest.mark.parametrize(("kind", "mode"), TRAININGS)
@pytest.mark.parametrize("restore", [True, False])
def test_the_best_weights_come_back(kind, mode, restore):
    stopping = EarlyStopping("score", mode="min", patience=2, restore_best=restore)
    loop = loop_of(kind, Scripted([2.0, 1.0, 3.0, 3.0, 3.0]), stopping, mode=mode)
    after = []
    loop.on(Event.EPOCH_END)(
        lambda state: after.append([w.clone() for w in weights_of(kind, loop.model)])
    )
    loop.fit(epochs=5)
    expected = after[1] if restore else after[3]
    assert all(map(torch.equal, weights_of(kind, loop.model), expected))
    if mode == "recorded":  # what was recorded goes on from the restored weights
        stopping = EarlyStopping("score", mode="min", patience=2, restore_best=restore)
        eager = loop_of(kind, Scripted([2.0, 1.0, 3.0, 3.0, 0.5]), stopping)
        eager.fit(epochs=5)
        eager.fit(epochs=1)
        loop.callbacks[-4].values[4] = 0.5
        loop.fit(epochs=1)
        assert all(map(torch.equal, weights_of(kind, loop.model), weights_of(kind, eager.model)))


def test_running_statistics_come_back_and_random_states_do_not():
    keras.utils.set_random_seed(0)
    layers = [keras.layers.BatchNormalization(), keras.layers.GaussianNoise(0.1, seed=3)]
    model = keras.Sequential([keras.Input((4,)), *layers, keras.layers.Dense(1)])
    from fitkit import FitLoop, supervised

    stopping = EarlyStopping("score", mode="min", patience=1)
    loop = FitLoop(model, batches(), callbacks=supervised(loss="mse", optimizer="adam"))
    loop.attach(Scripted([1.0, 2.0]), stopping)
    means, seeds = [], []

    @loop.on(Event.EPOCH_END)
    def note(state):
        means.append(model.layers[0].moving_mean.value.clone())
        seeds.append(model.layers[1].seed_generator.state.value.clone())

    loop.fit(epochs=2)
    assert torch.equal(model.layers[0].moving_mean.value, means[0])
    assert not torch.equal(means[0], means[1])
    assert torch.equal(model.layers[1].seed_generator.state.value, seeds[1])
    assert not torch.equal(seeds[0], seeds[1])


def test_a_validation_in_mid_epoch_counts_and_none_counts_twice():
    stopping = EarlyStopping("val_loss", patience=4, min_delta=1e6)
    loop = loop_of("torch", stopping)
    next(c for c in loop.callbacks if isinstance(c, Validate))._interval.count = 2
    next(c for c in loop.callbacks if isinstance(c, Validate))._interval.unit = "update"
    looks = []
    loop.on(Event.PASS_END, phases=[Phase.VAL])(lambda state: looks.append(state.num_updates))
    loop.fit(epochs=10)
    assert looks == [2, 4, 6, 8, 10]  # the first is the best, four are not better
    assert loop.state.num_updates == 10


def test_an_evaluation_by_somebody_else_does_not_count():
    stopping = EarlyStopping("val_loss", patience=1, min_delta=1e6)
    loop = loop_of("torch", stopping)
    loop.on(Event.BATCH_END)(lambda state: loop.evaluate())
    loop.fit(epochs=3)
    assert loop.state.num_epochs == 2


def test_patience_in_rarer_validations_warns_once():
    stopping = EarlyStopping("val_loss", patience=2, min_delta=1e6)
    loop = loop_of("torch", stopping)
    next(c for c in loop.callbacks if isinstance(c, Validate))._interval.count = 3
    next(c for c in loop.callbacks if isinstance(c, Validate))._interval.unit = "epoch"
    with pytest.warns(UserWarning, match="patience=2.*every 3 epochs\n.*after 6 epochs") as caught:
        loop.fit(epochs=20)
    assert len(caught) == 1
    assert loop.state.num_epochs == 9


def test_another_fit_has_patience_again():
    _, _, loop = stopped_after([1.0, 2.0, 2.0, 2.0, 2.0, 2.0], patience=2)
    assert loop.state.num_epochs == 3
    loop.fit(epochs=3)
    assert loop.state.num_epochs == 5


def test_a_restored_one_goes_on_where_it_was():
    values = [1.0, 2.0, 2.0, 2.0, 2.0]
    first = EarlyStopping("score", mode="min", patience=3)
    loop = loop_of("torch", Scripted(values), first)
    loop.fit(epochs=2)
    second = EarlyStopping("score", mode="min", patience=3)
    second.load_state_dict(first.state_dict())
    again = loop_of("torch", Scripted(values), second)
    again.state.epoch = 2
    again.fit(epochs=3)
    assert again.state.num_epochs == 2  # one look without a better value came with the state
    assert all(map(torch.equal, again.model.parameters(), first.state_dict()["weights"]))
    assert EarlyStopping().state_dict()["best"] != EarlyStopping().state_dict()["best"]  # NaN


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("val_loss", "min"),
        ("val_a_mean_squared_error", "min"),
        ("rmse", "min"),
        ("val_accuracy", "max"),
        ("top_k_categorical_accuracy", "max"),
        ("auc", "max"),
    ],
)
def test_the_mode_is_inferred_where_it_is_safe(name, mode):
    assert EarlyStopping(name)._monitor.mode == mode


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"monitor": "score"}, ["'score'", "'min'", "'max'"]),
        ({"monitor": "accuracy_loss"}, ["'accuracy_loss'", "'min'"]),
        ({"mode": "lower"}, ["mode='lower'", "'min'", "'max'"]),
        *[
            ({"patience": v}, [f"patience={v!r}", "at least 1"])
            for v in (0, -1, 1.5, True, NAN, "3")
        ],
        *[({"min_delta": v}, [f"min_delta={v!r}"]) for v in (-0.1, NAN, True, "x")],
        *[({"baseline": v}, [f"baseline={v!r}"]) for v in (NAN, True, "x")],
        ({"monitor": ""}, ["''"]),
    ],
)
def test_wrong_arguments_are_refused(arguments, words):
    with pytest.raises(ConfigError) as caught:
        EarlyStopping(**arguments)
    lines = str(caught.value).splitlines()
    assert len(lines[0]) <= 120
    assert all(word in str(caught.value) for word in words)


def test_a_missing_value_is_told_at_the_first_look():
    loop = loop_of("torch", EarlyStopping("val_los", mode="min"))
    with pytest.raises(ConfigError, match="EarlyStopping waits for 'val_los'.*\n.*\n.*'val_loss'"):
        loop.fit(epochs=3)
    assert loop.state.num_epochs == 1
    no_loader = loop_of("torch", EarlyStopping(), val=False)
    with pytest.raises(ConfigError, match="'val_loss', but the loop has no val_loader"):
        no_loader.fit(epochs=1)
    unvalidated = loop_of("torch", EarlyStopping())
    unvalidated.detach(next(c for c in unvalidated.callbacks if isinstance(c, Validate)))
    with pytest.raises(ConfigError, match="no callback validates"):
        unvalidated.fit(epochs=1)
    assert no_loader.state.num_batches == unvalidated.state.num_batches == 0


@pytest.mark.parametrize(
    ("val", "validates", "lacks", "remedy"),
    [
        (False, True, "the loop has no val_loader", "pass a val_loader"),
        (True, False, "no callback validates", "attach Validate()"),
        (
            *(False, False, "the loop has no val_loader and no callback validates"),
            "pass a val_loader and attach Validate()",
        ),
    ],
)
def test_what_validation_lacks_is_told_and_nothing_else(val, validates, lacks, remedy):
    def loop_with(*callbacks):
        loop = loop_of("torch", *callbacks, EarlyStopping(), val=val)
        if not validates:
            loop.detach(next(c for c in loop.callbacks if isinstance(c, Validate)))
        return loop

    with pytest.raises(ConfigError) as before:
        loop_with().fit(epochs=1)
    assert str(before.value).splitlines()[:2] == [
        f"EarlyStopping waits for 'val_loss', but {lacks}",
        f"{remedy[0].upper()}{remedy[1:]}, or monitor 'loss'.",
    ]
    with pytest.raises(ConfigError) as after:
        loop_with(Scripted([1.0], "own")).fit(epochs=1)
    assert str(after.value).splitlines()[2] == f"Monitor one of these, or {remedy}."


def test_a_value_of_ones_own_may_be_called_as_those_of_validation():
    stopping = EarlyStopping("val_own", mode="min", patience=2)
    loop = loop_of("torch", Scripted([1.0, 2.0, 2.0, 2.0], "val_own"), stopping, val=False)
    loop.fit(epochs=4)
    assert (loop.state.num_epochs, stopping.best) == (3, 1.0)
    others = loop_of("torch", Scripted([1.0], "own"), EarlyStopping(), val=False)
    with pytest.raises(ConfigError, match="'val_loss'.*\n.*\n.*or pass a val_loader"):
        others.fit(epochs=1)
    assert others.state.num_epochs == 1  # not before: the callback might have logged it


def test_callbacks_of_keras_and_functions_may_log_what_is_waited_for():
    class Logs(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["val_own"] = [1.0, 2.0, 2.0, 2.0][epoch]

    def stopping():
        return EarlyStopping("val_own", mode="min", patience=2)

    in_keras = loop_of("keras", KerasCallbacks([Logs()]), stopping(), val=False)
    in_keras.fit(epochs=4)
    by_function = loop_of("torch", stopping(), val=False)
    by_function.on(Event.PASS_END)(lambda state: state.logs.update(val_own=1.0))
    by_function.fit(epochs=4)
    assert in_keras.state.num_epochs == by_function.state.num_epochs == 3
