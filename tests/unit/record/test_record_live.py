"""State stays live between two replayed steps; whatever the loop does, it equals the eager one."""

from collections import UserDict

import keras
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from fitkit import (
    Backward,
    Callback,
    Event,
    FitLoop,
    Forward,
    Record,
    TensorLoader,
    TorchLoss,
    TorchStep,
    Turn,
    Validate,
    ZeroGrad,
    supervised,
)
from fitkit.loop.callback import TRAIN_ONLY
from tests.unit.record import loops


def _keras(*middle, change=None, at=7, train=None, val=None, metrics=(), **options):
    def make():
        model = loops.keras_model(*[kind() for kind in middle])
        stack = loops.keras_stack(model, metrics=[kind() for kind in metrics], **options)
        loop = FitLoop(model, train or loops.loader(), val, callbacks=stack)
        if change:
            loop.on(Event.BATCH_END, when=lambda s: s.num_batches == at)(lambda s: change(loop))
        return loop

    return make


def _torch(*middle, change=None, at=7, train=None, val=None, metrics=(), **options):
    def make():
        model = loops.torch_model(*[kind() for kind in middle])
        stack = loops.torch_stack(model, metrics=[kind() for kind in metrics], **options)
        loop = FitLoop(model, train or loops.loader(), val, callbacks=stack)
        if change:
            loop.on(Event.BATCH_END, when=lambda s: s.num_batches == at)(lambda s: change(loop))
        return loop

    return make


def _halve(loop):
    loop.model.set_weights([weight * 0.5 for weight in loop.model.get_weights()])


def _zeros(loop):
    loop.model.load_state_dict({k: v * 0.5 for k, v in loop.model.state_dict().items()})


def _zeros_assigned(loop):
    state = {k: (v * 0.5).clone() for k, v in loop.model.state_dict().items()}
    loop.model.load_state_dict(state, assign=True)


def _other_head(loop):
    loop.model[0].bias = torch.nn.Parameter(torch.ones(8))


def _nothing(loop):
    loop.state.request_eager()


def _thaw(loop):
    layer = loop.model.layers[0]
    layer.trainable = not layer.trainable


KERAS = {
    "set_weights": (_keras(change=_halve), True),
    "freeze": (_keras(change=_thaw), True),
    "dropout rate": (
        _keras(
            lambda: keras.layers.Dropout(0.5),
            change=lambda loop: setattr(loop.model.layers[1], "rate", 0.1),
        ),
        True,
    ),
    "seeded dropout": (_keras(lambda: keras.layers.Dropout(0.5, seed=3)), None),
    "nadam": (_keras(optimizer=keras.optimizers.Nadam(1e-2)), None),
    "batch norm": (_keras(keras.layers.BatchNormalization), True),
    "metrics": (_keras(metrics=[keras.metrics.SparseCategoricalAccuracy]), True),
}


@pytest.mark.filterwarnings("ignore:.*flags of the model changed")
@pytest.mark.parametrize("name", ["set_weights", "freeze", "dropout rate", "batch norm", "metrics"])
def test_keras_state_is_live(name):
    loops.compare(KERAS[name][0])


def test_silent_cases_of_keras():
    loops.compare(KERAS["seeded dropout"][0], replays=None)


@pytest.mark.parametrize("kind", ["Nadam", "Adam"])
@pytest.mark.parametrize("options", [{}, {"gradient_accumulation_steps": 2}])
def test_silent_cases_of_keras_optimizers(kind, options):
    def make():
        model = loops.keras_model()
        optimizer = getattr(keras.optimizers, kind)(1e-2, **options)
        return FitLoop(model, loops.loader(), callbacks=loops.keras_stack(model, optimizer))

    loops.compare(make, replays=None)


@pytest.mark.filterwarnings("ignore:.*flags of the model changed")
@pytest.mark.parametrize(
    "change",
    [
        _zeros,
        _zeros_assigned,
        _other_head,
        lambda loop: loop.model[2].eval(),
        lambda loop: loop.model.eval(),
        lambda loop: loop.model[0].requires_grad_(False),
        lambda loop: loop.model[0].register_forward_hook(lambda m, a, out: out * 0.5),
        lambda loop: setattr(loop.model, "2", torch.nn.Dropout(0.1)),
        _nothing,
    ],
)
def test_torch_state_is_live(change):
    plain = loops.run(_torch(torch.nn.Dropout), None)
    result = loops.compare(_torch(torch.nn.Dropout, change=change))
    assert loops.same(plain, result) == (
        result.report.count("batch of 8") == 1 and not _is_load(change)
    )


def _is_load(change):
    return change in (_zeros, _zeros_assigned)


def test_freeze_and_thaw_again():
    def drive(loop):
        loop.on(Event.BATCH_BEGIN, when=lambda s: s.num_batches in (4, 8))(lambda s: _thaw(loop))
        return loop.fit(epochs=3)

    loops.compare(_keras(), drive=drive)


class Double(Callback):
    phases = TRAIN_ONLY

    def on_loss_ready(self, state):
        state.loss = state.loss * 2


def test_callbacks_that_join_and_leave():
    def make():
        loop, double = _torch()(), Double()
        loop.on(Event.BATCH_END, when=lambda s: s.num_batches == 4)(lambda s: loop.attach(double))
        loop.on(Event.BATCH_END, when=lambda s: s.num_batches == 9)(lambda s: loop.detach(double))
        return loop

    loops.compare(make)


def test_a_host_callback_that_joins_keeps_the_programs():
    def make():
        loop = _torch()()

        @loop.on(Event.BATCH_END, once=True)
        def once(state):
            loop.on(Event.BATCH_END)(lambda state: None)

        return loop

    result = loops.compare(make)
    assert result.report.count("batch of 8") == 1


@pytest.mark.parametrize("attribute", ["label_smoothing", "reduction"])
def test_a_changed_loss_takes_effect(attribute):
    def make():
        loss, model = torch.nn.CrossEntropyLoss(), loops.torch_model()
        loop = FitLoop(model, loops.loader(), callbacks=loops.torch_stack(model, loss=loss))
        value = {"label_smoothing": 0.3, "reduction": "sum"}[attribute]
        loop.on(Event.BATCH_END, when=lambda s: s.num_batches == 7)(
            lambda s: setattr(loss, attribute, value)
        )
        return loop

    assert not loops.same(loops.run(_torch(), None), loops.compare(make))


def test_a_changed_metric_takes_effect():
    def make():
        metric, model = keras.metrics.TopKCategoricalAccuracy(k=1), loops.keras_model()
        metric = keras.metrics.BinaryAccuracy(threshold=0.5)
        loss = keras.losses.MeanSquaredError()
        x, y = loops.data()
        loader = TensorLoader(x, torch.nn.functional.one_hot(y, 4).float(), batch_size=8)
        stack = loops.keras_stack(model, loss=loss, metrics=[metric])
        loop = FitLoop(model, loader, callbacks=stack)
        loop.on(Event.BATCH_END, when=lambda s: s.num_batches == 7)(
            lambda s: setattr(metric, "threshold", 0.1)
        )
        return loop

    loops.compare(make)


class Extras(Callback):
    phases = TRAIN_ONLY

    def on_batch_begin(self, state):
        state.extra.noise = {"x": torch.randn(()), "scale": 0.5 if state.num_batches % 2 else 1.0}
        state.grad_scale = torch.full((), 1.0 + state.num_batches)
        state.inputs = state.inputs * 1.5

    def on_loss_ready(self, state):
        state.extra.parts = {"loss": state.loss}
        state.loss = state.loss + state.extra.noise["x"] * state.outputs.sum() * 0.1
        state.loss = state.loss * state.extra.noise["scale"]
        state.losses["noise"] = state.loss * 2
        state.log("noise", state.extra.noise["x"])

    def on_batch_end(self, state):
        self.seen = getattr(self, "seen", [])
        values = {**state.losses, **state.step_values, "parts": state.extra.parts["loss"]}
        self.seen.append([(name, value.item()) for name, value in values.items()])


def test_what_batch_begin_puts_on_the_state():
    seen = []

    def make():
        loop, extras = _torch()(), Extras()
        seen.append(extras)
        return loop.attach(extras)

    loops.compare(make)
    assert [sorted(step) for step in seen[0].seen] == [sorted(step) for step in seen[1].seen]


class Previous(Callback):
    """Gives a step the tensor of its batch a second time, then another one."""

    phases = TRAIN_ONLY

    def on_batch_begin(self, state):
        given = state.inputs
        state.extra.other = given if state.num_batches < 7 else torch.zeros_like(given)

    def on_loss_ready(self, state):
        state.loss = state.loss * (1 + state.extra.other.mean())


def test_inputs_that_are_one_tensor_only_for_a_while():
    loops.compare(lambda: _torch()().attach(Previous()))


class InputGradients(Callback):
    phases = TRAIN_ONLY

    def on_batch_begin(self, state):
        state.inputs = state.inputs.clone().requires_grad_()

    def on_batch_end(self, state):
        assert state.inputs.grad is not None


def test_gradients_of_inputs_are_left_where_eager_leaves_them():
    result = loops.compare(lambda: _torch()().attach(InputGradients()), replays=False)
    assert "gradients on its inputs" in result.warnings[0]


def test_an_object_in_extra_runs_eagerly():
    class Opaque(Callback):
        phases = TRAIN_ONLY

        def on_batch_begin(self, state):
            state.extra.box = loops.SimpleNamespace(scale=state.num_batches)

        def on_loss_ready(self, state):
            state.loss = state.loss * (state.extra.box.scale + 1)

    result = loops.compare(lambda: _torch()().attach(Opaque()), replays=False)
    assert "SimpleNamespace" in result.warnings[0]


class Needs(Callback):
    phases = TRAIN_ONLY
    needs = frozenset({"outputs", "gradients"})

    def __init__(self):
        self.seen = []

    def on_batch_end(self, state):
        grads = [p.grad.clone() for p in state.model.parameters()]
        self.seen.append([state.outputs.clone(), state.loss.clone(), *grads])


def test_outputs_and_gradients_that_are_needed():
    seen = []

    def make():
        seen.append(Needs())
        return _torch()().attach(seen[-1])

    loops.compare(make)
    for eager, recorded in zip(seen[0].seen, seen[1].seen, strict=True):
        assert all(map(torch.equal, eager, recorded))


class Window(Callback):
    phases = TRAIN_ONLY

    def on_batch_begin(self, state):
        state.opens_update = state.batch_index % 3 == 0
        state.closes_update = state.batch_index % 3 == 2


class WithoutLength:
    def __init__(self, num=40):
        self.batches = list(loops.loader(num))

    def __iter__(self):
        return iter(self.batches)


@pytest.mark.parametrize("kind", [_torch, _keras])
def test_accumulation_windows(kind):
    result = loops.compare(lambda: kind(train=WithoutLength())().attach(Window()), epochs=4)
    assert 3 <= len(result.record.recordings) <= 6  # opens, goes on, closes


def test_turns():
    def make():
        model = loops.torch_model()
        loss = torch.nn.functional.cross_entropy

        def parts(index, rate):
            optimizer = torch.optim.SGD(model[index].parameters(), rate, momentum=0.9)
            return [ZeroGrad(), Forward(), TorchLoss(loss), Backward(), TorchStep(optimizer)]

        turns = [Turn("one", parts(0, 0.1)), Turn("two", parts(2, 0.2), every=2)]
        return FitLoop(model, loops.loader(), callbacks=turns)

    loops.compare(make, epochs=4)


def test_validation_in_mid_pass_evaluate_and_predict():
    def make():
        model = loops.torch_model(torch.nn.Dropout())
        stack = [c for c in loops.torch_stack(model) if not isinstance(c, Validate)]
        return FitLoop(
            model, loops.loader(44), loops.loader(20), callbacks=[*stack, Validate("3 updates")]
        )

    results = []

    def drive(loop):
        loop.fit(epochs=3)
        logs = [loop.evaluate() for _ in range(3)]
        predictions = [loop.predict(loops.loader(20)) for _ in range(3)]
        results.append((logs, [p.tolist() for p in predictions]))
        return loop.fit(epochs=2)

    result = loops.compare(make, drive=drive)
    assert results[0] == results[1]
    assert "predict, batch of 8" in result.report
    assert "val, batch of 4" in result.report


def test_evaluation_inside_of_an_evaluation():
    def make():
        loop = _torch(val=loops.loader(40))()

        @loop.on(Event.BATCH_END, phases=["val"], when=lambda s: s.batch_index == 3)
        def nested(state):
            if state.prefix != "inner_":
                logs.append(loop.evaluate({"inner": loops.loader(24)}))

        return loop

    logs = []
    loops.compare(make)
    assert logs[: len(logs) // 2] == logs[len(logs) // 2 :]


class Generated:
    """A fresh generator per pass."""

    def __iter__(self):
        return (batch for batch in loops.loader())


def _dicts():
    return [{"input": x, "target": y} for x, y in loops.loader()]


class ByName(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = loops.torch_model()

    def forward(self, input):
        return self.net(input)


@pytest.mark.parametrize("batch", [dict, UserDict])
def test_dict_inputs(batch):
    def make():
        model = ByName()
        batches = [(batch(input=x), y) for x, y in loops.loader()]
        return FitLoop(model, batches, callbacks=loops.torch_stack(model))

    loops.compare(make)


@pytest.mark.parametrize("kind", ["generator", "DataLoader", "weights"])
def test_loaders(kind):
    def make():
        x, y = loops.data(44)
        model = loops.keras_model()
        train = {
            "generator": Generated(),
            "DataLoader": DataLoader(TensorDataset(x, y), 8, shuffle=True),
            "weights": TensorLoader(x, y, torch.rand(44), batch_size=8, shuffle=True),
        }[kind]
        return FitLoop(model, train, callbacks=loops.keras_stack(model))

    loops.compare(make)


def test_the_batch_is_gathered_in_the_program_only(monkeypatch):
    from fitkit.data import Gather

    record, takes = Record("interpret"), []
    take = Gather.take
    monkeypatch.setattr(Gather, "take", lambda self: takes.append(type(self.index)) or take(self))
    result = loops.run(_torch(), record, epochs=4)
    assert len([kind for kind in takes if kind is torch.Tensor]) <= 20 - result.replays + 5


@pytest.mark.parametrize("event", [Event.GRADS_READY, Event.LOSS_READY])
def test_filtered_listeners_in_the_region(event):
    def make():
        loop = _torch()()

        @loop.on(event, every=3)
        def shrink(state):
            if event is Event.GRADS_READY:
                for parameter in state.model.parameters():
                    parameter.grad.mul_(0.1)
            else:
                state.loss = state.loss * 0.1

        return loop

    result = loops.compare(make, epochs=4)
    assert result.report.count("batch of 8") == 2


def test_supervised_by_torch_metrics():
    torchmetrics = pytest.importorskip("torchmetrics")

    def make(validate=False):
        model = loops.torch_model()
        kind = torchmetrics.classification.MulticlassAccuracy
        metrics = [kind(4, validate_args=validate, average="macro" if validate else "micro")]
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        stack = supervised(loss=torch.nn.CrossEntropyLoss(), optimizer=optimizer, metrics=metrics)
        stack = [c for c in stack if not isinstance(c, Validate)]
        return FitLoop(
            model, loops.loader(44), loops.loader(20), callbacks=[*stack, Validate("3 updates")]
        )

    result = loops.compare(make)
    assert not result.refusals
    result = loops.compare(lambda: make(validate=True))
    assert all("UPDATE_METRICS" in reason for reason in result.refusals)
    assert "UPDATE_METRICS runs eagerly" in result.report


def test_the_checks_of_the_first_batch_cost_one_eager_step_per_run():
    x, y = torch.randn(64, 4), torch.arange(64) % 3
    model = torch.nn.Linear(4, 3)
    stack = supervised(
        loss=torch.nn.CrossEntropyLoss(), optimizer=torch.optim.SGD(model.parameters(), lr=0.1)
    )
    record = Record("interpret")
    batches = TensorLoader(x, y, batch_size=16)
    loop = FitLoop(model, batches, batches, callbacks=[stack, record])
    loop.fit(epochs=6)
    assert [r.num_eager for r in record.recordings.values()] == [1, 1]  # train and val
