"""Programs: how many there are, when one compiles, what is told, what an error leaves behind."""

import re
import warnings

import keras
import pytest
import torch

from fitkit import ConfigError, Event, FitLoop, Record, TensorLoader
from fitkit.record.program import Program
from tests.unit.record import loops


def _loop(train=None, val=None, **options):
    model = loops.torch_model()
    stack = loops.torch_stack(model, **options)
    return FitLoop(model, train or loops.loader(), val, callbacks=stack)


@pytest.fixture
def compiles(monkeypatch):
    """Stand in for the compiler: programs go on interpreting and say they do not."""
    made = []

    def compile(self, backend, inputs, *, options=None):
        made.append((backend, inputs[0].shape[0]))
        self.backend, self.num_replays_of_backend = backend, 0

    monkeypatch.setattr(Program, "compile", compile)
    return made


class Pooled(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = loops.torch_model()

    def forward(self, x):
        return self.net(x.mean(1))


def test_variable_lengths_are_bounded_by_one_warning_that_names_bucketing():
    def make():
        generator = torch.Generator().manual_seed(0)
        shapes = [4 + index for index in range(6)] * 2
        y = torch.arange(8) % 4
        batches = [(torch.randn(8, length, 6, generator=generator), y) for length in shapes]
        model = Pooled()
        return FitLoop(model, batches, callbacks=loops.torch_stack(model))

    result = loops.compare(make, max_programs=3)
    (warning,) = result.warnings
    assert "bucketing" in warning
    assert len(result.record.recordings) == 3


def test_an_explicit_backend_compiles_at_once_but_no_ragged_batch(compiles, capsys):
    loops.run(lambda: _loop(loops.loader(44)), Record("inductor"))
    assert compiles == [("inductor", 8)]
    assert "fitkit: compiling train, batch of 8 with inductor ..." in capsys.readouterr().err


@pytest.mark.parametrize(("step_ms", "planned", "compiled"), [(1, 60, 0), (1000, 60, 1)])
def test_auto_compiles_where_the_replays_to_come_pay_for_it(
    compiles, monkeypatch, step_ms, planned, compiled
):
    from fitkit.record import tiers

    clock = iter(range(10**6))
    monkeypatch.setattr(tiers.time, "perf_counter", lambda: next(clock) * step_ms * 0.04)
    loops.run(lambda: _loop(), Record("auto"), epochs=planned)
    assert len(compiles) == compiled


def test_auto_goes_on_interpreting_if_the_compiler_fails(monkeypatch):
    from fitkit.record import tiers

    def broken(self, backend, inputs, *, options=None):
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(Program, "compile", broken)
    monkeypatch.setattr(tiers.Tiers, "_pays", lambda self, recording, state: True)
    eager = loops.run(_loop, None, epochs=20)
    result = loops.run(_loop, Record("auto"), epochs=20)
    assert loops.same(eager, result)
    assert "no compiler here" in result.warnings[0]
    with pytest.raises(RuntimeError, match="no compiler here") as caught:
        loops.run(_loop, Record("inductor"))
    assert "while compiling train, batch of 8 with inductor" in caught.value.__notes__


def test_an_error_in_a_replay_names_the_program_and_its_events():
    record, loop = Record("interpret"), _loop()
    loop.attach(record)
    loop.fit(epochs=1)
    for recording in record.recordings.values():
        recording.program._run = lambda inputs: 1 / 0
    with pytest.raises(ZeroDivisionError) as caught:
        loop.fit(epochs=1)
    (note,) = [note for note in caught.value.__notes__ if "replaying" in note]
    assert "train, batch of 8: ZERO_GRAD FORWARD LOSS LOSS_READY BACKWARD GRADS_READY APPLY" in note


def test_a_second_record_is_refused_and_detach_restores():
    record, loop = Record("interpret"), _loop()
    loop.attach(record)
    with pytest.raises(ConfigError, match="already has a Record"):
        loop.attach(Record("interpret"))
    loop = _loop().attach(record := Record("interpret"))
    loop.fit(epochs=1)
    loop.detach(record)
    assert loop.runner.run_step == loop.runner.run_region
    assert "nothing is recorded" in loop.record_report()
    loop.fit(epochs=1)
    with pytest.raises(ConfigError, match="Use one of"):
        Record("tensorrt")


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, SystemExit])
@pytest.mark.parametrize("event", [Event.LOSS_READY, Event.GRADS_READY, Event.UPDATE_METRICS])
def test_an_error_in_the_middle_of_a_trace_leaves_nothing_behind(error, event):
    record, holder = Record("interpret"), {}

    def make():
        loop = _loop(metrics=[keras.metrics.SparseCategoricalAccuracy()])

        @loop.on(event)
        def raises(state):
            if state.loss.__class__.__name__ == "FakeTensor":
                holder["fake"] = state.loss
                state.extra.fake = state.loss
                raise error("now")

        return loop

    keras.utils.set_random_seed(1)
    loop = make().attach(record)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loop.fit(epochs=1)
    except error:
        assert error is not ValueError  # that is a refusal: the step cannot be traced
    assert type(loop.state) is type(_loop().state)
    assert not any(
        isinstance(p.grad, torch._subclasses.FakeTensor) for p in loop.model.parameters()
    )
    assert loop.bus._tracers == []
    assert "fake" not in holder  # closures are put back, too
    loops.assert_nothing_fake(record)


def test_report():
    result = loops.run(lambda: _loop(loops.loader(44), loops.loader(16)), Record("interpret"))
    lines = result.report.splitlines()
    assert re.match(r"step +backend +nodes +trace s +compile s +replays +eager", lines[0])
    assert re.match(r"train, batch of 8 +interpret +\d+ +\d\.\d\d +0\.0 +\d+ +\d+", lines[1])
    assert any(line.startswith("val, batch of 8") for line in lines)

    def reads(state):
        state.loss = state.loss * state.loss.item()

    def make():
        loop = _loop()
        loop.on(Event.LOSS_READY)(reads)
        return loop

    assert "runs eagerly: reads at LOSS_READY: " in loops.run(make, Record("interpret")).report


def test_a_loader_made_for_every_evaluation_takes_a_bounded_number_of_programs():
    results = []

    def drive(loop):
        x, y = loops.data(16)
        loaders = [TensorLoader(x.numpy(), y.numpy(), batch_size=8) for _ in range(30)]
        results.append([loop.evaluate(loader) for loader in loaders])
        return loop.fit(epochs=2)

    result = loops.compare(_loop, drive=drive)
    assert results[0] == results[1]
    assert result.report.count("val, batch of 8") <= 5


def _long():
    model = loops.keras_model(keras.layers.BatchNormalization(), keras.layers.Dropout(0.3))
    metrics = [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]
    train = loops.loader(77, shuffle=True, seed=4)
    return FitLoop(
        model, train, loops.loader(20), callbacks=loops.keras_stack(model, metrics=metrics)
    )


def test_five_hundred_steps_are_equal_bit_by_bit():
    result = loops.compare(lambda: _long(), epochs=50)
    assert result.loop.state.num_updates == 500
    assert result.replays > 400


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_compiled_steps_agree_with_eager_ones_from_the_same_state():
    keras.utils.set_random_seed(1)
    x, y = loops.data(80)
    model, optimizer = loops.keras_model(), keras.optimizers.Adam(1e-2)
    loop = FitLoop(
        model, TensorLoader(x, y, batch_size=8), callbacks=loops.keras_stack(model, optimizer)
    )
    record = Record("inductor")
    loop.attach(record)
    loop.fit(epochs=1)
    for _ in range(5):
        loop.fit(epochs=2)
        before = [tensor.clone() for tensor in loops.tensors_of(loop)]
        step = TensorLoader(x[:8], y[:8], batch_size=8)
        after = []
        for eager in (False, True):
            with torch.no_grad():
                for tensor, value in zip(loops.tensors_of(loop), before, strict=True):
                    tensor.copy_(value)
            loop.train_loader = step
            listener = loop.on(Event.BATCH_BEGIN)(lambda s, e=eager: e and s.request_eager())
            loop.fit(max_steps=1)
            listener.remove()
            after.append([tensor.clone() for tensor in loops.tensors_of(loop)])
        loop.train_loader = TensorLoader(x, y, batch_size=8)
        for variable, old, new, right in zip(_names(loop), before, *after, strict=True):
            change = (right.double() - old.double()).abs().max()
            error = (right.double() - new.double()).abs().max()
            assert error <= _tolerance(variable) * change, variable


def _names(loop):
    names = [f"weight {i}" for i, _ in enumerate(loop.model.parameters())]
    for callback in loop.callbacks:
        names += [v.path for v in getattr(getattr(callback, "optimizer", None), "variables", [])]
    return names


def _tolerance(name):
    return 1e-5 if "momentum" in name else 2e-4 if "velocity" in name else 1e-3
