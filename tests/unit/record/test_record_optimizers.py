"""What the host decides about updates stays live under Record: rates, accumulation, scales."""

import keras
import pytest
import torch
from torch import nn

from fitkit import (
    Accumulate,
    Event,
    FitLoop,
    KerasApply,
    LRSchedule,
    Phase,
    Record,
    TensorLoader,
    supervised,
)
from fitkit.record.optimizers import Optimizers
from fitkit.record.optimizers.step_count import StepCount
from tests.unit.record.loops import (
    compare,
    data,
    keras_model,
    keras_stack,
    loader,
    torch_model,
    torch_stack,
)

S = keras.optimizers.schedules


def keras_loop(make_optimizer, *middle, listen=None):
    def make():
        model = keras_model(*[layer() for layer in middle])
        optimizer = make_optimizer()
        loop = FitLoop(model, loader())
        loop.attach(keras_stack(model, optimizer))
        if listen:
            listen(loop, optimizer)
        return loop

    return make


def torch_loop(make_optimizer, listen=None):
    def make():
        model = torch_model()
        optimizer = make_optimizer(model.parameters())
        loop = FitLoop(model, loader())
        loop.attach(torch_stack(model, optimizer))
        if listen:
            listen(loop, optimizer)
        return loop

    return make


def train_programs(recorded):
    lines = recorded.report.splitlines()
    return [line for line in lines if line.startswith("train") and "interpret" in line]


def optimizer_of(recorded):
    return next(c.optimizer for c in recorded.loop.callbacks if hasattr(c, "optimizer"))


# -- the learning rate of torch optimizers ---------------------------------------------------------


def _assign(loop, optimizer):
    @loop.on(Event.BATCH_END)
    def halve(state):
        for group in optimizer.param_groups:
            group["lr"] *= 0.9


def _schedule(loop, optimizer):
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.1, total_steps=20, cycle_momentum=False
    )

    @loop.on(Event.BATCH_END)
    def step(state):
        scheduler.step()


@pytest.mark.parametrize("listen", [_assign, _schedule], ids=["assigned", "scheduled"])
@pytest.mark.parametrize("cls", [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD])
def test_the_rate_of_a_fused_optimizer_is_live(cls, listen):
    recorded = compare(torch_loop(lambda p: cls(p, lr=0.01, fused=True), listen))
    assert len(train_programs(recorded)) == 1
    optimizer = optimizer_of(recorded)
    assert type(optimizer.param_groups[0]["lr"]) is float


def test_a_rate_of_zero_stops_the_weights():
    def listen(loop, optimizer):
        @loop.on(Event.EPOCH_END)
        def stop(state):
            optimizer.param_groups[0]["lr"] = 0.0

    recorded = compare(torch_loop(lambda p: torch.optim.Adam(p, lr=0.01, fused=True), listen))
    assert len(train_programs(recorded)) == 1


def test_a_rate_that_cannot_be_a_tensor_is_part_of_the_key():
    def listen(loop, optimizer):
        @loop.on(Event.EPOCH_END)
        def halve(state):
            optimizer.param_groups[0]["lr"] /= 2

    recorded = compare(torch_loop(lambda p: torch.optim.SGD(p, lr=0.1), listen))
    assert len(train_programs(recorded)) == 3


def test_other_numbers_of_a_group_are_part_of_the_key():
    def listen(loop, optimizer):
        @loop.on(Event.EPOCH_END)
        def change(state):
            optimizer.param_groups[0]["weight_decay"] += 0.1

    make = torch_loop(lambda p: torch.optim.AdamW(p, fused=True), listen)
    assert len(train_programs(compare(make))) == 3


def test_the_default_adam_is_refused_with_advice():
    recorded = compare(torch_loop(torch.optim.Adam), replays=False)
    assert "torch.optim.Adam(fused=True)" in recorded.warnings[0]


# -- branches inside Keras optimizers --------------------------------------------------------------


def _accumulating():
    return keras.optimizers.Adam(0.01, gradient_accumulation_steps=3)


def _averaging():
    return keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=3)


def _both():
    return keras.optimizers.Adam(
        0.01, gradient_accumulation_steps=2, use_ema=True, ema_overwrite_frequency=2
    )


@pytest.mark.parametrize("make", [_accumulating, _averaging, _both])
def test_branches_that_follow_the_step_count_are_recorded(make):
    recorded = compare(keras_loop(make), epochs=6)
    assert len(train_programs(recorded)) >= 2
    assert not recorded.refusals


def _reset(loop, optimizer):
    @loop.on(Event.BATCH_BEGIN)
    def reset(state):
        if state.num_batches in (9, 13, 14):
            optimizer._iterations.assign(0)


@pytest.mark.parametrize("make", [_accumulating, _averaging])
def test_a_step_count_that_somebody_else_writes_is_noticed(make):
    compare(keras_loop(make, listen=_reset), epochs=6)


def test_without_the_versions_it_goes_unnoticed(monkeypatch):
    def stale(self):
        tensor = self._optimizer._iterations.value
        if self._tensor is None:
            self._tensor, self._value = tensor, int(tensor)
        return self._value

    monkeypatch.setattr(StepCount, "read", stale)
    with pytest.raises(AssertionError):
        compare(keras_loop(_accumulating, listen=_reset), epochs=6)


def test_an_eager_step_in_between_counts():
    def listen(loop, optimizer):
        @loop.on(Event.BATCH_BEGIN)
        def look(state):
            if state.num_batches in (10, 11, 17):
                state.request_eager()

    compare(keras_loop(_accumulating, listen=listen), epochs=6)


class Asks(keras.layers.Layer):
    """A layer with a branch of its own; nobody may answer for it."""

    def call(self, x):
        return x if x.sum() > 0 else -x


class AskingConstraint(keras.constraints.Constraint):
    """A branch inside the update that is not the optimizer's."""

    def __call__(self, w):
        return w if w.value.sum() > 0 else w * 0.9


def test_only_the_branches_of_the_optimizer_are_answered():
    compare(keras_loop(_accumulating, Asks), replays=False)


def test_a_branch_of_a_constraint_is_not_answered_either():
    def dense():
        return keras.layers.Dense(8, kernel_constraint=AskingConstraint())

    for make in (_accumulating, _averaging):
        recorded = compare(keras_loop(make, dense), replays=None)
        assert recorded.refusals


# -- learning rates of Keras that Python computes --------------------------------------------------

SCHEDULES = {
    "warmup": lambda: S.CosineDecay(0.001, 12, warmup_target=0.02, warmup_steps=5),
    "restarts": lambda: S.CosineDecayRestarts(0.02, 4),
    "steps": lambda: S.PiecewiseConstantDecay([4, 8], [0.02, 0.01, 0.005]),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_with_branches_is_recorded(name):
    schedules = []

    def make():
        schedules.append(SCHEDULES[name]())
        return keras.optimizers.AdamW(schedules[-1], weight_decay=0.1)

    recorded = compare(keras_loop(make, listen=_reset), epochs=4)
    assert len(train_programs(recorded)) == 1
    assert not recorded.refusals
    optimizer = optimizer_of(recorded)
    assert optimizer._learning_rate is schedules[-1]
    assert optimizer.get_config()["learning_rate"]["class_name"] == type(schedules[-1]).__name__


def test_a_function_of_the_state_is_evaluated_at_each_step():
    def listen(loop, optimizer):
        optimizer.learning_rate = lambda: 0.1 / (1 + loop.state.num_updates)

    make = keras_loop(lambda: keras.optimizers.Adam(lambda: 0.0), listen=listen)
    assert len(train_programs(compare(make))) == 1


def test_a_function_of_a_changing_variable_is_evaluated_anew():
    def listen(loop, optimizer):
        rate = {"now": 0.1}
        optimizer.learning_rate = lambda: rate["now"]

        @loop.on(Event.EPOCH_END)
        def decay(state):
            rate["now"] /= 2

    compare(keras_loop(lambda: keras.optimizers.Adam(lambda: 0.0), listen=listen))


def test_a_function_that_counts_its_calls_is_refused():
    class Warmup:
        calls = 0

        def __call__(self):
            self.calls += 1
            return 0.001 * self.calls

    make = keras_loop(lambda: keras.optimizers.Adam(Warmup()))
    recorded = compare(make, replays=False)
    assert "calls" in recorded.warnings[0]


def test_a_function_of_tensors_is_recorded_as_it_is():
    def listen(loop, optimizer):
        optimizer.learning_rate = lambda: 0.1 / (1.0 + optimizer._iterations.value)

    make = keras_loop(lambda: keras.optimizers.Adam(lambda: 0.0), listen=listen)
    assert len(train_programs(compare(make))) == 1


# -- loss scales -----------------------------------------------------------------------------------


def _scaled():
    inner = keras.optimizers.Adam(0.01)
    # So large that gradients overflow, at first and whenever it grows.
    return keras.optimizers.LossScaleOptimizer(inner, 2.0**127, dynamic_growth_steps=2)


def test_loss_scaling_is_recorded_with_its_overflows():
    recorded = compare(keras_loop(_scaled), epochs=5)
    assert not recorded.refusals
    optimizer = optimizer_of(recorded)
    assert 0 < int(optimizer.inner_optimizer.iterations.value) < 25 - 1


@pytest.mark.parametrize(
    "make_optimizer", [_scaled, lambda: keras.optimizers.SGD(0.1, loss_scale_factor=8.0)]
)
def test_eager_loss_scaling_is_that_of_keras(make_optimizer):
    x, y = data()

    def trained(train):
        keras.utils.set_random_seed(0)
        model = keras_model()
        train(model, make_optimizer())
        return [v.value.detach() for v in model.trainable_variables]

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def by_keras(model, optimizer):
        model.compile(optimizer=optimizer, loss=loss)
        for i in range(0, 40, 8):
            model.train_on_batch(x[i : i + 8], y[i : i + 8])

    def by_us(model, optimizer):
        loop = FitLoop(model, TensorLoader(x, y, batch_size=8))
        loop.attach(supervised(loss=loss, optimizer=optimizer))
        loop.fit(epochs=1)

    assert all(map(torch.equal, trained(by_keras), trained(by_us)))


def test_a_multi_optimizer_trains():
    optimizers = keras.optimizers.OptimizerMap(
        keras.optimizers.Adam(0.01), {".*bias": keras.optimizers.SGD(0.1)}
    )
    model = keras_model()
    loop = FitLoop(model, loader())
    loop.attach(keras_stack(model, KerasApply(keras.optimizers.MultiOptimizer(optimizers))))
    assert "lr" not in loop.fit(epochs=1).rows[0]


# -- numbers that a step writes into ---------------------------------------------------------------


def test_a_step_may_add_to_a_tensor_made_from_a_number():
    """Keras does (`total = convert_to_tensor(0.0); total += ...`), so numbers are copied then."""
    recorded = compare(keras_loop(keras.optimizers.Adam, keras.layers.ActivityRegularization))
    assert not recorded.refusals
    recorded = compare(keras_loop(keras.optimizers.Adam, Totals))
    assert not recorded.refusals


class Totals(keras.layers.Layer):
    """A layer that sums up in place, beginning with a number."""

    def call(self, x):
        total = keras.ops.convert_to_tensor(0.0)
        total += keras.ops.mean(x)
        return x + total


def scheduled(*callbacks):
    """Train 3 epochs with another rate in each update; validation logs the rate from its step."""
    torch.manual_seed(0)
    x = torch.randn(32, 4)
    model = nn.Linear(4, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1, fused=True)
    batches = TensorLoader(x, x.sum(1, keepdim=True), batch_size=8)
    loop = FitLoop(model, batches, batches)
    loop.attach(supervised(loss=nn.MSELoss(), optimizer=optimizer), *callbacks)
    loop.attach(LRSchedule(lambda step: 0.1 / (step + 1)), record := Record("interpret"))

    @loop.on(Event.UPDATE_METRICS, phases=[Phase.TRAIN, Phase.VAL])
    def log_rate(state):
        rate = torch.as_tensor(optimizer.param_groups[0]["lr"], dtype=torch.float64)
        state.log("rate", rate, reduce="last")

    return loop.fit(epochs=3), record


@pytest.mark.parametrize("accumulate", [False, True])
def test_the_rate_of_an_optimizer_that_a_step_does_not_apply_is_live_as_well(accumulate):
    history, record = scheduled(*([Accumulate(2)] if accumulate else []))
    last = [2, 4, 6] if accumulate else [4, 8, 12]  # updates done; the rate of the one before
    assert history["val_rate"] == pytest.approx([0.1 / step for step in last])
    # One of training and one of validation; of a window its first batch ever, then both halves.
    assert len(record.recordings) == (4 if accumulate else 2)
    assert all(recording.num_eager == 1 for recording in record.recordings.values())


def test_a_program_whose_rate_does_not_rest_is_made_anew(monkeypatch):
    selected = Optimizers.select

    def without_the_resting(self, optimizers):
        selected(self, optimizers)
        self._resting = []

    monkeypatch.setattr(Optimizers, "select", without_the_resting)
    _, record = scheduled()
    assert len(record.recordings) == 4  # one of validation per rate
