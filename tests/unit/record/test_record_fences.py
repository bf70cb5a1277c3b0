"""The fences of Record: reads, host fields, optimizer scalars, dynamic shapes, the audit."""

import keras
import pytest
import torch

from fitkit import Callback, Event, FitLoop, Record
from fitkit.loop.callback import TRAIN_ONLY
from fitkit.record import Refused
from fitkit.record.guard import OpGuard, ReadGuard
from tests.unit.record import loops


def _torch(optimizer=None, hook=None, event=Event.LOSS_READY, **options):
    def make():
        model = loops.torch_model()
        made = optimizer(model.parameters()) if optimizer else None
        loop = FitLoop(model, loops.loader(), callbacks=loops.torch_stack(model, made, **options))
        if hook:
            loop.on(event)(hook)
        return loop

    return make


# -- (a) reads ------------------------------------------------------------------------------------


def _scaled_by(read):
    def weigh(state):
        state.loss = state.loss * (1.0 + 0.1 * read(state))

    return weigh


READS = {
    "float": lambda s: float(s.loss),
    "item": lambda s: s.loss.item(),
    "bool": lambda s: 1.0 if s.loss > 1 else 0.0,
    "int": lambda s: int(s.loss),
    "tolist": lambda s: s.loss.tolist(),
    "numpy": lambda s: s.loss.detach().numpy() * 1.0,
    "cpu": lambda s: s.loss.detach().cpu(),
    "index": lambda s: range(9)[s.targets[0]],
}
HOST = {
    "num_updates": lambda s: s.num_updates,
    "batch_index": lambda s: s.batch_index,
    "epoch": lambda s: s.epoch,
    "is_last_batch": lambda s: float(s.is_last_batch),
    "logs": lambda s: len(s.logs),
    "elapsed_s": lambda s: float(s.elapsed_s > 1e9),
}


@pytest.mark.parametrize("name", [*READS, *HOST])
def test_reads_are_refused_and_the_step_runs_eagerly(name):
    result = loops.compare(_torch(hook=_scaled_by({**READS, **HOST}[name])), replays=False)
    (warning,) = result.warnings
    assert "weigh at LOSS_READY" in warning
    if name in READS:
        assert "test_record_fences.py:" in warning


def _stop(state):
    state.request_stop("at once")


def _write_log(state):
    state.logs["x"] = 1.0


def _extra(state):
    state.extra.flag = 3


def _request(state):
    state.request(Event.SAVE)


def _eager(state):
    state.request_eager()


@pytest.mark.parametrize("hook", [_stop, _write_log, _extra, _request, _eager])
def test_writes_of_host_fields_are_refused(hook):
    result = loops.compare(_torch(hook=hook), epochs=2, replays=None if hook is _eager else False)
    if hook not in (_eager, _stop):
        assert f"{hook.__name__} at LOSS_READY" in result.warnings[0]


def test_without_the_guard_a_read_is_frozen(monkeypatch):
    def weigh(state):
        state.loss = state.loss * NUMBERS.sum().item()
        NUMBERS.add_(1)

    NUMBERS = torch.zeros(())
    monkeypatch.setattr(
        ReadGuard, "__torch_function__", lambda s, f, t, a=(), k=None: f(*a, **k or {})
    )
    monkeypatch.setattr(
        OpGuard, "__torch_dispatch__", lambda s, f, t, a=(), k=None: f(*a, **k or {})
    )
    monkeypatch.setattr("fitkit.record.recording.is_due", lambda program: False)
    eager = loops.run(_torch(hook=weigh), None)
    NUMBERS.zero_()
    assert not loops.same(eager, loops.run(_torch(hook=weigh), Record("interpret")))


# -- (c) optimizer scalars ------------------------------------------------------------------------


def _at_batch_seven(change):
    def at_end(state):
        if state.num_batches == 7:
            change()

    return at_end


TORCH = {
    "fused adam": lambda p: torch.optim.Adam(p, 1e-2, fused=True),
    "fused adamw": lambda p: torch.optim.AdamW(p, 1e-2, fused=True),
    "sgd": lambda p: torch.optim.SGD(p, 0.1),
    "momentum": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, dampening=0.1),
    "fused sgd": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, fused=True),
    "tensor lr": lambda p: torch.optim.Adam(p, torch.tensor(1e-2), fused=True),
    "foreach adam": lambda p: torch.optim.Adam(p, 1e-2, foreach=True),
    "adam": lambda p: torch.optim.Adam(p, 1e-2),
}


@pytest.mark.parametrize("name", TORCH)
@pytest.mark.parametrize("how", ["assigned", "scheduler", "betas", "loaded"])
def test_scalars_of_torch_optimizers_take_effect(name, how):
    def make(changed=True):
        model = loops.torch_model()
        optimizer = TORCH[name](model.parameters())
        loop = FitLoop(model, loops.loader(), callbacks=loops.torch_stack(model, optimizer))
        group = optimizer.param_groups[0]
        if how == "scheduler":
            schedule = torch.optim.lr_scheduler.StepLR(optimizer, 4, 0.5)
            loop.on(Event.BATCH_END)(lambda state: schedule.step())
        elif how == "assigned":
            loop.on(Event.BATCH_END)(_at_batch_seven(lambda: group.update(lr=0.0)))
        elif how == "betas":
            new = {"betas": (0.5, 0.9)} if "betas" in group else {"weight_decay": 0.1}
            loop.on(Event.BATCH_END)(_at_batch_seven(lambda: group.update(new)))
        else:
            saved = []
            loop.on(Event.FIT_BEGIN)(lambda state: None)

            @loop.on(Event.BATCH_END)
            def reload(state):
                if state.num_batches == 4:
                    saved.append(_copied(optimizer.state_dict()))
                if state.num_batches == 9:
                    optimizer.load_state_dict(saved[0])

        return loop

    loops.compare(make, replays=None, close=True)


def _copied(value):
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {k: _copied(v) for k, v in value.items()}
    return [_copied(v) for v in value] if isinstance(value, list) else value


def _keras_change(optimizer, how):
    schedule = keras.optimizers.schedules.ExponentialDecay(0.5, 2, 0.5)
    rates = {"rate": 0.5}
    return {
        "rate": lambda: setattr(optimizer, "learning_rate", 0.0),
        "beta_1": lambda: setattr(optimizer, "beta_1", 0.1),
        "schedule": lambda: setattr(optimizer, "learning_rate", schedule),
        "callable": lambda: setattr(optimizer, "learning_rate", lambda: rates["rate"]),
        "clipnorm": lambda: setattr(optimizer, "clipnorm", 0.01),
    }[how]


@pytest.mark.parametrize("how", ["rate", "beta_1", "schedule", "callable", "clipnorm"])
def test_scalars_of_keras_optimizers_take_effect(how):
    def make(changed=True):
        model, optimizer = loops.keras_model(), keras.optimizers.Adam(1e-2)
        loop = FitLoop(model, loops.loader(), callbacks=loops.keras_stack(model, optimizer))
        if changed:
            loop.on(Event.BATCH_END)(_at_batch_seven(_keras_change(optimizer, how)))
        return loop

    eager = loops.run(lambda: make(changed=False), None)
    assert not loops.same(eager, loops.compare(make))


def test_a_learning_rate_function_that_counts():
    def make():
        calls = []
        model = loops.keras_model()
        optimizer = keras.optimizers.SGD(lambda: calls.append(1) or 0.1 / len(calls))
        return FitLoop(model, loops.loader(), callbacks=loops.keras_stack(model, optimizer))

    loops.compare(make, replays=None, close=True)


# -- (d) shapes that depend on data ---------------------------------------------------------------


def test_a_divisor_from_a_masked_shape_is_refused():
    class Masked(Callback):
        phases = TRAIN_ONLY

        def on_loss_ready(self, state):
            kept = state.outputs[state.targets > 1]
            state.loss = state.loss + kept.sum() / max(1, kept.shape[0])

    def make():
        return _torch()().attach(Masked())

    result = loops.compare(make, replays=False)
    assert "Masked at LOSS_READY" in result.warnings[0]
    assert "shape" in result.warnings[0]


# -- (e) the audit --------------------------------------------------------------------------------


class Sabotage(Callback):
    """Before replay number `at`, the program becomes another one."""

    def __init__(self, record, at, error=1e-2):
        self.record, self.at, self.error = record, at, error
        self.tampered = []

    def on_batch_begin(self, state):
        for recording in self.record.recordings.values():
            program = recording.program
            if program and program.num_replays == self.at - 1 and program not in self.tampered:
                self.tampered.append(program)
                program._run = _wrong(program._run, next(state.model.parameters()), self.error)


def _wrong(run, weight, error):
    def wrong(inputs):
        result = run(inputs)
        weight.add_(error)
        return result

    return wrong


@pytest.mark.parametrize("error", [1e-2, float("nan"), float("inf")])
@pytest.mark.parametrize("at", [2, 4, 8])
def test_the_audit_catches_a_program_gone_wrong_and_keeps_the_eager_result(at, error):
    eager, record = loops.run(_torch(), None), Record("interpret")
    result = loops.run(lambda: _torch()().attach(Sabotage(record, at, error)), record)
    assert loops.same(eager, result)
    assert "differs from the eager step" in result.warnings[0]
    assert "state tensor of shape (8, 6)" in result.warnings[0]
    assert result.replays == 0


def test_without_the_audit_it_goes_unnoticed(monkeypatch):
    monkeypatch.setattr("fitkit.record.recording.is_due", lambda program: False)
    eager, record = loops.run(_torch(), None), Record("interpret")
    result = loops.run(lambda: _torch()().attach(Sabotage(record, 3)), record)
    assert not loops.same(eager, result)
    assert not result.warnings


def test_strict_raises_and_says_why():
    with pytest.raises(Refused, match="weigh at LOSS_READY"):
        loops.run(_torch(hook=_scaled_by(READS["item"])), Record("interpret", strict=True))
