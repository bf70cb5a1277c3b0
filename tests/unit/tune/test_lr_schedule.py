"""LRSchedule sets what a loop written by hand would set, and is the only one who does."""

import copy
import math

import keras
import pytest
import torch
from torch.optim import lr_scheduler

from fitkit import (
    Callback,
    CallbackOrderError,
    ConfigError,
    Cosine,
    EarlyStopping,
    Event,
    FitLoop,
    KerasCallbacks,
    LRSchedule,
    OneCycle,
    Plateau,
    Turn,
    supervised,
)
from tests.unit.tune.trainings import (
    KINDS,
    TRAININGS,
    Late,
    assert_equal,
    batches,
    by_hand,
    loop_of,
    model_of,
    replays,
)


def set_rate(optimizer, value):
    if isinstance(optimizer, torch.optim.Optimizer):
        for group in optimizer.param_groups:
            group["lr"] = value
    else:
        optimizer.learning_rate = value


def rate_of(optimizer):
    if isinstance(optimizer, torch.optim.Optimizer):
        return optimizer.param_groups[0]["lr"]
    return float(optimizer.learning_rate)


def optimizer_in(loop):
    return next(c.optimizer for c in loop.callbacks if hasattr(c, "optimizer"))


def rates_used(loop):
    """The rate of each update, noted in the step region's neighbourhood."""
    seen = []

    @loop.on(Event.BATCH_END)
    def note(state):
        seen.append(rate_of(optimizer_in(loop)))

    return seen


@pytest.mark.parametrize(("kind", "mode"), TRAININGS)
def test_a_function_of_the_update(kind, mode):
    schedule = Cosine(0.1, steps=15, warmup=3)
    loop = loop_of(kind, LRSchedule(schedule), mode=mode)
    loop.fit(epochs=3)
    assert_equal(loop, kind, by_hand(kind, lambda o, k: set_rate(o, schedule(k))))
    if mode == "recorded":
        assert replays(loop) > 10  # one program, whatever the rate is


def test_without_the_schedule_the_weights_are_others():
    loop = loop_of("torch")
    loop.fit(epochs=3)
    expected = by_hand("torch", lambda o, k: set_rate(o, 0.1 / (k + 1)))
    assert not torch.equal(next(loop.model.parameters()), expected[0])


@pytest.mark.parametrize("kind", KINDS)
def test_steps_may_be_epochs_or_several_updates(kind):
    per_epoch = loop_of(kind, LRSchedule(lambda k: 0.1 / (k + 1), every="1 epoch"))
    per_epoch.fit(epochs=3)
    assert_equal(per_epoch, kind, by_hand(kind, lambda o, k: set_rate(o, 0.1 / (k // 5 + 1))))
    coarse = loop_of(kind, LRSchedule(lambda k: 0.1 / (k + 1), every="2 updates"))
    coarse.fit(epochs=3)
    assert_equal(coarse, kind, by_hand(kind, lambda o, k: set_rate(o, 0.1 / (k // 2 + 1))))


@pytest.mark.parametrize("kind", KINDS)
def test_a_keras_schedule_is_evaluated_as_keras_does(kind):
    decay = keras.optimizers.schedules.ExponentialDecay(0.1, 3, 0.7)
    loop = loop_of(kind, LRSchedule(decay))
    loop.fit(epochs=3)
    assert_equal(loop, kind, by_hand(kind, lambda o, k: set_rate(o, float(decay(k)))))


TORCH_SCHEDULERS = {
    "StepLR": lambda o: lr_scheduler.StepLR(o, 4, 0.5),
    "Sequential": lambda o: lr_scheduler.SequentialLR(
        o,
        [lr_scheduler.LinearLR(o, 0.1, total_iters=4), lr_scheduler.ExponentialLR(o, 0.8)],
        milestones=[4],
    ),
    "OneCycle": lambda o: lr_scheduler.OneCycleLR(o, 0.2, total_steps=20),
    "Lambda": lambda o: lr_scheduler.LambdaLR(o, lambda k: 1 / (k + 1)),
}


# OneCycle recorded would be a new program at every update: it changes a beta.
STEPPED = [*((name, "eager") for name in TORCH_SCHEDULERS), ("Sequential", "recorded")]


@pytest.mark.parametrize(("name", "mode"), STEPPED)
def test_a_torch_scheduler_steps_after_each_update(name, mode):
    make = TORCH_SCHEDULERS[name]
    kept = {}

    def before_update(optimizer, k):
        if k == 0:
            kept["scheduler"] = make(optimizer)
        else:
            kept["scheduler"].step()

    expected = by_hand("torch", before_update)
    loop = loop_of("torch", Late(lambda o: LRSchedule(make(o))), mode=mode)
    loop.fit(epochs=3)
    assert_equal(loop, "torch", expected)


def test_a_torch_scheduler_per_epoch():
    rates = []
    loop = loop_of("torch", Late(lambda o: LRSchedule(lr_scheduler.StepLR(o, 1), every="1 epoch")))
    rates = rates_used(loop)
    loop.fit(epochs=1)
    loop.fit(epochs=2)
    assert rates == pytest.approx([0.05] * 5 + [0.005] * 5 + [0.0005] * 5)


class Windows(Callback):
    """Open an update at every third batch: accumulation as the loop sees it."""

    def on_batch_begin(self, state):
        state.opens_update = state.batch_index % 3 == 0
        state.closes_update = state.batch_index % 3 == 2


@pytest.mark.parametrize("kind", KINDS)
def test_updates_are_counted_not_batches(kind):
    loop = loop_of(kind, Windows(), LRSchedule(lambda k: 0.1 / (k + 1)))
    rates = rates_used(loop)
    loop.fit(epochs=2)  # windows of 3 and 2 batches, twice
    expected = [1, 1, 1, 2, 2, 3, 3, 3, 4, 4]
    assert rates == pytest.approx([0.1 / n for n in expected])


@pytest.mark.parametrize(("kind", "mode"), TRAININGS)
def test_weight_decay_and_momentum_by_name(kind, mode):
    def before_update(optimizer, k):
        if kind == "torch":
            group = optimizer.param_groups[0]
            group["weight_decay"], group["betas"] = 0.1 * (k // 5), (0.5 + 0.1 * (k // 5), 0.999)
        else:
            optimizer.weight_decay, optimizer.beta_1 = 0.1 * (k // 5), 0.5 + 0.1 * (k // 5)

    decay = LRSchedule(lambda k: 0.1 * k, of="weight_decay", every="1 epoch")
    momentum = LRSchedule(lambda k: 0.5 + 0.1 * k, of="momentum", every="1 epoch")
    loop = loop_of(kind, decay, momentum, mode=mode)
    history = loop.fit(epochs=3)
    assert_equal(loop, kind, by_hand(kind, before_update))
    assert history["weight_decay"] == pytest.approx([0.0, 0.1, 0.2])
    assert history["momentum"] == pytest.approx([0.5, 0.6, 0.7])


def test_groups_keep_their_ratio():
    def make(model):
        first, last = model[0].parameters(), model[2].parameters()
        groups = [{"params": first, "lr": 0.1}, {"params": last, "lr": 0.3}]
        return torch.optim.SGD(groups, lr=0.1)

    loop = loop_of("torch", LRSchedule(lambda k: 1.0 - 0.1 * k), optimizer=make)
    loop.fit(max_steps=4)
    groups = optimizer_in(loop).param_groups
    assert [group["lr"] for group in groups] == pytest.approx([0.7, 2.1])


def test_the_optimizer_may_load_its_state_in_mid_run():
    loop = loop_of("torch", LRSchedule(lambda k: 0.1 / (k + 1)))
    optimizer = optimizer_in(loop)
    rates = rates_used(loop)
    groups = optimizer.param_groups

    @loop.on(Event.BATCH_END, every=2)
    def load(state):
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))

    loop.fit(epochs=1)
    assert rates == pytest.approx([0.1 / n for n in range(1, 6)])
    assert groups is not optimizer.param_groups  # torch binds others: who keeps these sets nothing
    assert groups[0]["lr"] == pytest.approx(0.1 / 2)


# -- plateaus


def scripted(values, name="val_loss"):
    """A callback that logs these values, one per epoch."""

    class Scripted(Callback):
        def on_epoch_end(self, state):
            state.logs[name] = values[state.epoch]

    return Scripted()


VALUES = [3.0, 2.0, 2.0, 2.1, 2.0, 1.0, float("nan"), 1.0, 1.5, 0.99, 2.0, 2.0, 2.0, 2.0]


@pytest.mark.parametrize("options", [{}, {"cooldown": 2}, {"min_delta": 0.1, "min_lr": 0.02}])
def test_a_plateau_is_that_of_keras(options):
    keras_options = {"min_delta": 0.0, **options, "patience": 2, "factor": 0.5}
    callback = keras.callbacks.ReduceLROnPlateau("score", mode="min", **keras_options)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    callback.set_model(model)
    callback.on_train_begin()
    expected = []
    for epoch, value in enumerate(VALUES):
        callback.on_epoch_end(epoch, {"score": value})
        expected.append(float(model.optimizer.learning_rate))

    ours = {("min_value" if k == "min_lr" else k): v for k, v in keras_options.items()}
    schedule = LRSchedule(Plateau("score", mode="min", **ours))
    loop = loop_of("torch", scripted(VALUES, "score"), schedule, rate=0.1)
    rates = []
    loop.on(Event.EPOCH_END)(lambda state: rates.append(rate_of(optimizer_in(loop))))
    loop.fit(epochs=len(VALUES))
    assert rates == pytest.approx(expected)


@pytest.mark.parametrize(("kind", "mode"), TRAININGS)
def test_a_plateau_of_validation_takes_effect(kind, mode):
    schedule = LRSchedule(Plateau("val_loss", patience=1, factor=0.5, min_delta=1e3))
    loop = loop_of(kind, schedule, mode=mode)
    loop.fit(epochs=3)  # the first value is the best; each further one is no better
    expected = by_hand(kind, lambda o, k: set_rate(o, 0.05 * 0.5 ** max(k // 5 - 1, 0)))
    assert_equal(loop, kind, expected)


def test_torchs_own_plateau_looks_at_what_it_is_told():
    def make(optimizer):
        plateau = lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=1e6)
        return LRSchedule(plateau, monitor="val_loss")

    loop = loop_of("torch", Late(make))
    rates = rates_used(loop)
    loop.fit(epochs=3)
    assert rates[::5] == pytest.approx([0.05, 0.005, 0.0005])  # nothing is better by so much


def test_a_plateau_without_a_value_says_what_there_is():
    loop = loop_of("torch", LRSchedule(Plateau("val_accuracy")))
    with pytest.raises(ConfigError, match="'val_accuracy'.*\n.*loss.*val_loss.*\nMonitor one"):
        loop.fit(epochs=1)
    loop = loop_of("torch", LRSchedule(Plateau("val_loss")), val=False)
    with pytest.raises(ConfigError, match="'val_loss', but the loop has no val_loader"):
        loop.fit(epochs=1)
    assert loop.state.num_batches == 0


@pytest.mark.parametrize(
    ("given", "said"),
    [(None, "None"), (-0.1, "-0.1"), (float("inf"), "inf"), ("fast", "'fast'")],
)
def test_a_schedule_that_gives_no_rate_is_told_at_that_step(given, said):
    loop = loop_of("torch", LRSchedule(lambda step: 0.1 if step < 3 else given))
    with pytest.raises(ConfigError, match=f"gives {said} at step 3, expected a finite number >= 0"):
        loop.fit(epochs=1)
    assert loop.state.num_updates == 3


def test_other_numbers_may_be_negative_but_not_infinite():
    def make(model):
        return torch.optim.Adafactor(model.parameters(), lr=0.01)

    schedule = LRSchedule(lambda k: [-0.8, -0.9, -math.inf][k], of="beta2_decay", every="1 epoch")
    loop = loop_of("torch", schedule, optimizer=make)
    assert loop.fit(epochs=2)["beta2_decay"] == [-0.8, -0.9]
    with pytest.raises(ConfigError, match="gives -inf at step 2, expected a finite number\n"):
        loop.fit(epochs=1)


def test_a_schedule_may_fall_to_zero_within_rounding():
    loop_of("torch", LRSchedule(lambda step: 0.3 - step * 0.1)).fit(max_steps=4)
    assert 0.3 - 3 * 0.1 < 0  # -5.6e-17


# -- one controller


def with_schedule(model):
    return keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.1, 10))


def with_function(model):
    def my_rate():
        return 0.1

    return keras.optimizers.Adam(my_rate)


@pytest.mark.parametrize(
    ("kind", "others", "optimizer", "names"),
    [
        ("torch", [LRSchedule(Cosine(1.0, steps=3))], None, ["LRSchedule(Cosine)"]),
        ("keras", [], with_schedule, ["CosineDecay"]),
        ("keras", [], with_function, ["my_rate"]),
        (
            "keras",
            [KerasCallbacks([keras.callbacks.ReduceLROnPlateau()])],
            None,
            ["ReduceLROnPlateau in KerasCallbacks"],
        ),
        (
            "keras",
            [KerasCallbacks([keras.callbacks.LearningRateScheduler(lambda e: 0.1)])],
            None,
            ["LearningRateScheduler in KerasCallbacks"],
        ),
    ],
)
def test_a_second_controller_is_refused(kind, others, optimizer, names):
    schedule = LRSchedule(OneCycle(1.0, steps=40))
    loop = loop_of(kind, *others, schedule, optimizer=optimizer)
    with pytest.raises(ConfigError) as caught:
        loop.fit(epochs=1)
    first = str(caught.value).splitlines()[0]
    assert all(name in first for name in ["LRSchedule(OneCycle)", *names]), first
    assert loop.state.num_batches == 0


def test_two_of_the_same_are_refused_and_two_numbers_are_not():
    twice = [LRSchedule(Cosine(1.0, steps=3)), LRSchedule(Cosine(1.0, steps=3))]
    with pytest.raises(ConfigError, match=r"LRSchedule\(Cosine\) and LRSchedule\(Cosine\)"):
        loop_of("torch", *twice).fit(epochs=1)
    decay = LRSchedule(Cosine(0.1, steps=15), of="weight_decay")
    loop_of("torch", LRSchedule(Cosine(0.1, steps=15)), decay).fit(epochs=1)


def test_a_torch_scheduler_of_the_momentum_controls_it_too():
    def make(optimizer):
        return LRSchedule(lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=20))

    momentum = LRSchedule(lambda k: 0.9, of="momentum")
    with pytest.raises(ConfigError, match="momentum of AdamW is set by two"):
        loop_of("torch", Late(make), momentum).fit(epochs=1)


# -- plots, state, mistakes


def test_values_and_plot_change_nothing():
    for name, make in TORCH_SCHEDULERS.items():
        plain, looked = [loop_of("torch", Late(lambda o, m=make: LRSchedule(m(o)))) for _ in "ab"]
        schedule = looked.callbacks[-1]
        values, axes = schedule.values(15), schedule.plot(15)
        rates = rates_used(looked)
        plain.fit(epochs=3)
        looked.fit(epochs=3)
        assert values == pytest.approx(rates), name
        assert list(axes.lines[0].get_ydata()) == values
        assert torch.equal(next(plain.model.parameters()), next(looked.model.parameters()))
    assert LRSchedule(Cosine(1.0, steps=4)).values(2) == [1.0, Cosine(1.0, steps=4)(1)]
    with pytest.raises(ConfigError, match="depends on 'val_loss'"):
        LRSchedule(Plateau("val_loss")).plot(10)


SCHEDULES = {
    "function": lambda o: LRSchedule(Cosine(0.1, steps=30)),
    "torch": lambda o: LRSchedule(TORCH_SCHEDULERS["Sequential"](o)),
    "cycle": lambda o: LRSchedule(TORCH_SCHEDULERS["OneCycle"](o)),
    "plateau": lambda o: LRSchedule(Plateau("loss", patience=1, min_delta=1e3)),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_restored_schedule_goes_on_where_it_was(name):
    """Stop after 7 updates, restore into a new loop, and compare with a run in one go."""
    make = SCHEDULES[name]
    whole = loop_of("torch", Late(make))
    whole.fit(epochs=3)

    first = loop_of("torch", Late(make))
    first.fit(epochs=2)
    second = loop_of("torch", Late(make))
    second.model.load_state_dict(first.model.state_dict())
    optimizer_in(second).load_state_dict(optimizer_in(first).state_dict())
    state = first.callbacks[-1].state_dict()
    second.callbacks[-1].load_state_dict(state)
    for field in ("epoch", "num_epochs", "num_updates", "num_batches", "num_samples"):
        setattr(second.state, field, getattr(first.state, field))
    second.fit(epochs=1)
    assert all(map(torch.equal, whole.model.parameters(), second.model.parameters()))
    assert second.callbacks[-1].state_dict() == whole.callbacks[-1].state_dict()


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (lambda: LRSchedule(Cosine), TypeError, ["the class", "Cosine"]),
        (lambda: LRSchedule(0.1), TypeError, ["0.1", "schedule"]),
        (lambda: LRSchedule(abs, every="1 minute"), ConfigError, ["1 minute", "epochs"]),
        (lambda: LRSchedule(abs, every=0), ConfigError, ["every=0"]),
        (lambda: LRSchedule(abs, monitor="loss"), ConfigError, ["monitor='loss'"]),
        (lambda: Plateau("val_loss", factor=1.0), ConfigError, ["factor=1.0"]),
        (lambda: Plateau("val_loss", patience=0), ConfigError, ["patience=0"]),
        (lambda: Plateau("val_loss", cooldown=-1), ConfigError, ["cooldown=-1"]),
        (lambda: Plateau("score"), ConfigError, ["'score'", "'min'", "'max'"]),
    ],
)
def test_wrong_arguments_are_refused(make, kind, words):
    with pytest.raises(kind) as caught:
        make()
    lines = str(caught.value).splitlines()
    assert len(lines[0]) <= 120
    assert all(word in lines[0] for word in words), lines[0]


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        (LRSchedule(lambda k: float("nan")), "nan at step 0"),
        (LRSchedule(lambda k: 0.1, of="dropout"), "of='dropout'.*\n.*lr.*weight_decay"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_wrong_values_are_refused_before_the_first_update(kind, schedule, words):
    loop = loop_of(kind, schedule)
    with pytest.raises(ConfigError, match=words):
        loop.fit(epochs=1)
    assert loop.state.num_batches == 0


def test_the_optimizer_of_a_turn_counts_its_own_updates():
    from fitkit import Backward, Forward, TorchLoss, TorchStep, TrainMode, ZeroGrad

    model = model_of("torch")
    slow, fast = (torch.optim.SGD(model[i].parameters(), lr=0.1) for i in (0, 2))
    turns = [Turn("slow", [TorchStep(slow)], every=2), Turn("fast", [TorchStep(fast)])]
    schedule = LRSchedule(lambda k: 1.0 / (k + 1), optimizer=slow)
    loop = FitLoop(model, batches(), callbacks=[TrainMode(), ZeroGrad(), Forward()])
    loop.attach(TorchLoss(torch.nn.MSELoss()), Backward(), *turns, schedule)
    loop.fit(epochs=1)
    assert loop.state.turn_updates == {"slow": 2, "fast": 5}
    assert slow.param_groups[0]["lr"] == pytest.approx(1 / 3)
    assert fast.param_groups[0]["lr"] == 0.1
    with pytest.raises(ConfigError, match="2 optimizers"):
        loop.attach(LRSchedule(lambda k: 0.1)).fit(epochs=1)


@pytest.mark.parametrize("callback", [LRSchedule(Plateau("val_loss")), EarlyStopping()])
def test_what_looks_before_there_is_something_to_see_is_refused(callback):
    model = model_of("torch")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    stack = supervised(loss=torch.nn.MSELoss(), optimizer=optimizer)
    loop = FitLoop(model, batches(), batches(16), callbacks=[callback, *stack])
    name = type(callback).__name__
    with pytest.raises(CallbackOrderError, match=rf"{name} is listed before .*Metrics") as caught:
        loop.fit(epochs=1)
    assert str(caught.value).endswith(f"Right order: Metrics, {name}.")
    assert loop.state.num_batches == 0
