"""A batch that is no number: what is raised, taken back, brought back; and what it all costs."""

import keras
import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import ExponentialLR

from fitkit import (
    EMA,
    Accumulate,
    Checkpoint,
    ConfigError,
    Event,
    FitLoop,
    Freeze,
    LRSchedule,
    NaNGuard,
    NonFiniteError,
    Record,
    State,
    TensorLoader,
    Validate,
    gan,
    supervised,
)
from fitkit.record import recording
from fitkit.record.passes import writes
from fitkit.record.refused import Refused
from fitkit.testing import assert_no_sync
from fitkit.tune import nan_guard, undo

BAD, NUM_BATCHES = 2, 6
KINDS = ("torch", "keras")
CASES = [(recorded, kind) for recorded in (False, True) for kind in KINDS]


def rows(bad=(BAD,)):
    x = torch.randn(NUM_BATCHES * 4, 4, generator=torch.Generator().manual_seed(0))
    y = x.sum(1, keepdim=True)
    for batch in bad:
        x[batch * 4 + 1, 2] = torch.nan
    return x, y


def model_of(kind):
    keras.utils.set_random_seed(0)
    if kind == "torch":
        return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    dense, norm = keras.layers.Dense, keras.layers.BatchNormalization
    return keras.Sequential([keras.Input((4,)), dense(4), norm(), dense(1)])


def loop_of(kind, *callbacks, bad=(BAD,), run_dir=None, skip=()):
    x, y = rows(bad)
    kept = [i for i in range(len(x)) if i // 4 not in skip]
    model = model_of(kind)
    loss, optimizer = "mse", "adam"
    if kind == "torch":
        loss, optimizer = nn.MSELoss(), torch.optim.Adam(model.parameters(), lr=0.01, fused=True)
    stack = supervised(
        loss=keras.losses.MeanSquaredError() if kind == "keras" else loss, optimizer=optimizer
    )
    loader = TensorLoader(x[kept], y[kept], batch_size=4)
    return FitLoop(model, loader, callbacks=[*stack, *callbacks], run_dir=run_dir)


def tensors(loop):
    return [t.detach().clone() for t in (*loop.model.parameters(), *loop.model.buffers())]


def after(kind, updates):
    """The weights after so many good updates."""
    loop = loop_of(kind, bad=())
    loop.fit(max_steps=updates)
    return tensors(loop)


def same(one, other):
    return len(one) == len(other) and all(
        torch.equal(a, b) for a, b in zip(one, other, strict=True) if a.is_floating_point()
    )


@pytest.mark.parametrize("kind", KINDS)
def test_on_a_cpu_it_raises_before_the_update(kind):
    loop = loop_of(kind, NaNGuard())
    with pytest.raises(NonFiniteError) as caught:
        loop.fit(epochs=2)
    first, *_, last = str(caught.value).splitlines()
    bad = "0.weight" if kind == "torch" else "kernel"
    assert first.startswith(f"loss nan in update {BAD}, first bad gradient: ")
    assert bad in first
    assert len(first) <= 120
    assert "not finite: batch[0] 1." in str(caught.value)
    assert "loss nan" in str(caught.value)
    assert last.endswith('NaNGuard("skip").')
    assert same(tensors(loop), after(kind, BAD))


def test_without_it_the_weights_are_lost():
    loop = loop_of("torch")
    loop.fit(epochs=1)
    assert loop.model[0].weight.isnan().all()


@pytest.mark.parametrize("kind", KINDS)
def test_recorded_it_raises_later_with_the_weights_of_before(kind):
    loop = loop_of(kind, NaNGuard(every=2), Record("interpret"), bad=(4,))
    with pytest.raises(NonFiniteError, match="loss nan in update 4"):
        loop.fit(epochs=2)
    assert loop.state.num_updates == 6
    assert same(tensors(loop), after(kind, 4))


SKIPPED = [(recorded, kind, bad) for bad in ((0,), (1, 2, 5)) for recorded, kind in CASES]
SKIPPED += [pytest.param(*case, (BAD,), marks=pytest.mark.slow) for case in CASES]  # once more


@pytest.mark.parametrize(("recorded", "kind", "bad"), SKIPPED)
def test_a_skipped_update_has_not_been(kind, recorded, bad):
    guard = NaNGuard("skip")
    recording = [Record("interpret")] if recorded else []
    loop = loop_of(kind, guard, *recording, bad=bad)
    with pytest.warns(UserWarning, match=f"NaNGuard skipped {len(bad)} updates: loss nan"):
        loop.fit(epochs=1)
    expected = loop_of(kind, NaNGuard("skip"), bad=(), skip=bad)
    expected.fit(epochs=1)
    assert same(tensors(loop), tensors(expected))
    assert guard.num_skipped == len(bad)
    assert loop.state.num_updates == NUM_BATCHES


class FiniteGradients(nn.Module):
    def forward(self, outputs, targets):
        error = nn.functional.mse_loss(outputs, targets.nan_to_num())
        return error + 0 * targets.sum()  # nan where a target is


@pytest.mark.parametrize("bad", [(2,), (3,), (0, 4)])  # of two that make an update
@pytest.mark.parametrize("backend", [None, "interpret"])
def test_the_loss_of_each_part_of_an_update_counts(backend, bad):
    x, y = rows(bad=())
    for batch in bad:
        y[batch * 4] = torch.nan
    model, guard = model_of("torch"), NaNGuard("skip")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, fused=True)
    loop = FitLoop(model, TensorLoader(x, y, batch_size=4))
    loop.attach(supervised(loss=FiniteGradients(), optimizer=optimizer), Accumulate(2), guard)
    if backend is not None:
        loop.attach(Record(backend, strict=True))
    for _ in range(3):  # replayed in the end
        with pytest.warns(UserWarning, match="loss nan in update"):
            loop.fit(epochs=1)
    assert guard.num_skipped == 3 * len(bad)


@pytest.mark.parametrize("backend", [None, "interpret"])
def test_a_gradient_is_named_that_only_one_turn_has(backend, recwarn):
    networks = nn.ModuleList([nn.Linear(2, 4), nn.Linear(4, 1)])
    rates = [torch.optim.SGD(each.parameters(), lr=0.01, fused=True) for each in networks]
    loop = FitLoop(networks, TensorLoader(rows()[0], batch_size=4), callbacks=[NaNGuard("skip")])
    loop.attach(
        gan(
            generator=networks[0],
            discriminator=networks[1],
            generator_optimizer=rates[0],
            discriminator_optimizer=rates[1],
            loss=nn.BCEWithLogitsLoss(),
            latent_dim=2,
        )
    )
    if backend is not None:
        loop.attach(Record(backend, strict=True))
    loop.fit(epochs=2)
    told = [str(each.message) for each in recwarn if "NaNGuard" in str(each.message)]
    assert len(told) == 2
    assert all(each.endswith("first bad gradient: 1.weight") for each in told)


def test_on_a_cpu_only_what_is_taken_back_is_copied(monkeypatch):
    real, copied = undo.take_back, []
    monkeypatch.setattr(undo, "take_back", lambda *args: (copied.append(1), real(*args)))
    loop = loop_of("torch", NaNGuard("skip"), bad=(1, 4))
    with pytest.warns(UserWarning, match="skipped 2 updates"):
        loop.fit(epochs=1)
    assert len(copied) == 2


def scheduled(*callbacks):
    """A rate that the host evaluates for a recorded step, by the updates that really happened."""
    schedule = keras.optimizers.schedules.CosineDecay(0.01, 8, warmup_target=0.1, warmup_steps=4)
    model, (x, y) = model_of("torch"), rows((1, 3))
    stack = supervised(loss=nn.MSELoss(), optimizer=keras.optimizers.Adam(schedule))
    loop = FitLoop(model, TensorLoader(x, y, batch_size=4))
    loop.attach(stack, NaNGuard("skip"), *callbacks)
    with pytest.warns(UserWarning, match="skipped 2"):
        loop.fit(epochs=2)
    return tensors(loop)


def test_a_skipped_update_does_not_count_for_a_schedule(monkeypatch):
    assert same(scheduled(Record("interpret")), scheduled())  # which counts on the device
    monkeypatch.setattr(recording, "written_once", writes.written_state)
    with pytest.raises(UserWarning, match="a replay differs from the eager step"):
        scheduled(Record("interpret"))


def first_updates_skipped(*callbacks):
    """The first two updates are skipped, and a validation comes after each."""
    model, (x, y) = model_of("torch"), rows((0, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, fused=True)
    stack = supervised(loss=nn.MSELoss(), optimizer=optimizer)
    stack = [Validate(1) if isinstance(each, Validate) else each for each in stack]
    loop = FitLoop(model, TensorLoader(x, y, batch_size=4), TensorLoader(*rows(()), batch_size=8))
    loop.attach(*stack, NaNGuard("skip"), *callbacks)
    loop.fit(epochs=2)
    return tensors(loop)


@pytest.mark.filterwarnings("ignore:NaNGuard skipped")
def test_a_program_waits_for_the_slots_of_a_first_update(monkeypatch):
    recorded = first_updates_skipped(Record("interpret", strict=True))
    assert same(recorded, first_updates_skipped())
    monkeypatch.setattr(State, "request_eager", lambda self: None)
    with pytest.raises(Refused):
        first_updates_skipped(Record("interpret", strict=True))


@pytest.mark.filterwarnings("ignore:NaNGuard skipped")
@pytest.mark.parametrize("recorded", [False, True])
def test_a_first_update_taken_back_leaves_the_moments_of_other_weights(recorded, monkeypatch):
    def thawed(bad, skip):
        freeze = Freeze(lambda name: name.startswith("0."), until="3 updates")
        records = [Record("interpret")] if recorded else []
        loop = loop_of("torch", freeze, NaNGuard("skip"), *records, bad=bad, skip=skip)
        loop.fit(epochs=2)
        return tensors(loop)

    assert same(thawed((3,), ()), thawed((), (3,)))
    monkeypatch.setattr(undo.Undo, "_entries", _no_entries)
    assert not same(thawed((3,), ()), thawed((), (3,)))


def _no_entries(self):
    return [(optimizer.state, {}) for optimizer in self._optimizers]


def test_too_many_in_a_row_end_the_run():
    loop = loop_of("torch", NaNGuard("skip", limit=3), bad=(1, 2, 3, 4, 5))
    with pytest.raises(NonFiniteError, match="in update 1"):
        loop.fit(epochs=1)
    apart = loop_of("torch", NaNGuard("skip", limit=3), bad=(1, 2, 4, 5))
    with pytest.warns(UserWarning, match="skipped 4"):
        apart.fit(epochs=1)


@pytest.mark.parametrize("kind", KINDS)
def test_it_goes_back_to_the_newest_checkpoint(kind, tmp_path):
    guard = NaNGuard("rollback", every=2)
    loop = loop_of(kind, EMA(0.5), guard, Checkpoint(every=2), bad=(3,), run_dir=tmp_path)
    kept = []

    @loop.on(Event.BATCH_END)
    def keep(state):
        kept.append([*tensors(loop), *map(float, [guard.num_rollbacks])])

    with pytest.warns(UserWarning, match="went back to step-00000002.*update 3"):
        loop.fit(max_steps=4)
    assert guard.num_rollbacks == 1
    assert kept[3][-1] == 1.0
    assert same(kept[3][:-1], after(kind, 2))
    assert same(tensors(loop), after(kind, 2))


RATES = [0.01 * 0.5**epoch for epoch in range(4)]


def rates_after_a_rollback(kind, run_dir, schedule_of, spoil_epoch=2):
    """The rates of all updates; in one epoch the second batch is no number."""
    loop = loop_of(kind, NaNGuard("rollback", every=1), bad=(), run_dir=run_dir)
    optimizer = next(c.optimizer for c in loop.callbacks if hasattr(c, "optimizer"))
    loop.attach(LRSchedule(schedule_of(optimizer), every="1 epoch"), Checkpoint())
    rates = []

    @loop.on(Event.BATCH_BEGIN)
    def spoil(state):
        torch_like = isinstance(optimizer, torch.optim.Optimizer)
        rate = optimizer.param_groups[0]["lr"] if torch_like else float(optimizer.learning_rate)
        rates.append(rate)
        if state.epoch == spoil_epoch and state.batch_index == 1:
            state.inputs = state.inputs * torch.nan

    with pytest.warns(UserWarning, match="went back"):
        loop.fit(epochs=len(RATES))
    return rates


SCHEDULES = {
    "function": lambda optimizer: RATES.__getitem__,
    "scheduler": lambda optimizer: ExponentialLR(optimizer, 0.5),
}


@pytest.mark.parametrize(
    ("kind", "schedule"), [("torch", "function"), ("torch", "scheduler"), ("keras", "function")]
)
def test_the_rate_is_that_of_its_step_after_going_back(kind, schedule, tmp_path):
    rates = rates_after_a_rollback(kind, tmp_path, SCHEDULES[schedule])
    assert rates == pytest.approx([rate for rate in RATES for _ in range(NUM_BATCHES)])


def test_a_schedule_that_stays_leaves_the_rate_of_the_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(LRSchedule, "follows_weights", False)
    rates = rates_after_a_rollback("torch", tmp_path, SCHEDULES["scheduler"])
    assert rates[2 * NUM_BATCHES + 2] == RATES[1]
    assert rates[-1] == RATES[2]  # and every rate after it is one too late


def test_nothing_that_is_no_number_is_saved(tmp_path):
    loop = loop_of("torch", NaNGuard("rollback", every=100), Checkpoint(every=2), run_dir=tmp_path)
    with pytest.warns(UserWarning, match="went back"):
        loop.fit(epochs=1)
    assert all(t.isfinite().all() for t in tensors(loop))


def test_there_is_nothing_to_go_back_to(tmp_path):
    with pytest.raises(ConfigError, match="nothing to go back to"):
        loop_of("torch", NaNGuard("rollback")).fit(epochs=1)
    loop = loop_of("torch", NaNGuard("rollback"), Checkpoint(every=9), bad=(0,), run_dir=tmp_path)
    with pytest.raises(NonFiniteError, match="no checkpoint"):
        loop.fit(epochs=1)


@pytest.mark.parametrize("mode", ["skip", "rollback"])
def test_steps_read_nothing(mode, tmp_path, monkeypatch):
    monkeypatch.setattr(nan_guard, "_reads_freely", lambda loop: False)  # as on a GPU
    guard = NaNGuard(mode, every=1000)
    behind = [Checkpoint(every=1000)] if mode == "rollback" else []
    loop = loop_of("torch", guard, *behind, bad=(), run_dir=tmp_path)
    loop.fit(epochs=1)  # the first update of an optimizer makes its slots
    assert_no_sync(loop, of=guard)
    monkeypatch.undo()
    reading = NaNGuard()
    with pytest.raises(AssertionError, match="NaNGuard.on_grads_ready"):
        assert_no_sync(loop_of("torch", reading, bad=()), of=reading)


@pytest.mark.parametrize("mode", ["raise", "skip"])
def test_a_good_run_is_the_run_without_it(mode):
    assert same(tensors(trained(NaNGuard(mode))), tensors(trained()))


def trained(*callbacks):
    loop = loop_of("torch", *callbacks, bad=())
    loop.fit(epochs=2)
    return loop


@pytest.mark.parametrize(
    "arguments", [{"mode": "stop"}, {"every": 0}, {"limit": 1.5}, {"every": True}]
)
def test_arguments_out_of_range(arguments):
    with pytest.raises(ConfigError, match=str(next(iter(arguments.values())))):
        NaNGuard(**arguments)


@pytest.mark.parametrize("record", [(), (Record("interpret"),)], ids=["eager", "recorded"])
def test_it_goes_with_an_optimizer_of_keras_that_accumulates(record):
    def run(*callbacks):
        model, (x, y) = model_of("keras"), rows(())
        optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
        stack = supervised(loss=keras.losses.MeanSquaredError(), optimizer=optimizer)
        loop = FitLoop(model, TensorLoader(x, y, batch_size=4), callbacks=[*stack, *callbacks])
        loop.fit(epochs=2)
        return tensors(loop)

    assert same(run(NaNGuard("skip"), *record), run(*record))


def test_what_it_has_counted_makes_no_program(recwarn):
    record, guard = Record("interpret"), NaNGuard("skip", every=1)
    loop = loop_of("torch", guard, record, bad=(4,))
    loop.fit(epochs=8)
    assert guard.num_skipped == 8
    assert len(record.recordings) <= 3
    assert {str(w.message)[:16] for w in recwarn} == {"NaNGuard skipped"}
    replays = sum(each.program.num_replays for each in record.recordings.values())
    assert replays == 8 * NUM_BATCHES - 1
