"""Fence: Python state that a step depends on is in the key, what a step changes is refused."""

import functools
import random
from collections import deque

import keras
import numpy as np
import pytest
import torch

from fitkit import Callback, Event, FitLoop, KerasLoss, Record, TorchLoss
from fitkit.loop.callback import TRAIN_ONLY
from fitkit.record.python_state import PythonState
from tests.unit.record import loops


class Trained(Callback):
    phases = TRAIN_ONLY


class Ema(Trained):
    """An average that is rebound, and written into the gradients so that it matters."""

    def __init__(self):
        self.ema = torch.zeros(())

    def on_loss_ready(self, state):
        self.ema = 0.9 * self.ema + 0.1 * state.loss.detach()
        state.loss = state.loss * (1 + self.ema)


class Counter(Trained):
    def __init__(self):
        self.count = 0

    def on_loss_ready(self, state):
        self.count += 1
        state.loss = state.loss * (0.1 if self.count < 4 else 1.0)


class ListCounter(Trained):
    def __init__(self):
        self.seen = []

    def on_loss_ready(self, state):
        self.seen.append(state.loss.detach())
        state.loss = state.loss * len(self.seen)


class Window(Trained):
    def __init__(self):
        self.last = deque(maxlen=3)

    def on_loss_ready(self, state):
        self.last.append(state.loss.detach())
        state.loss = state.loss + sum(self.last)


class ClassCounter(Trained):
    count = 0

    def on_loss_ready(self, state):
        ClassCounter.count += 1
        state.loss = state.loss * ClassCounter.count


class OwnRandom(Trained):
    def __init__(self):
        self.python, self.numpy = random.Random(0), np.random.default_rng(0)

    def on_loss_ready(self, state):
        state.loss = state.loss * self.python.random() * self.numpy.random()


class GlobalRandom(Trained):
    def on_loss_ready(self, state):
        state.loss = state.loss * random.random() * np.random.rand()


class Swallows(Trained):
    def on_loss_ready(self, state):
        try:
            scale = 1.0 + float(state.loss) * 0.1
        except Exception:
            scale = 3.0
        state.loss = state.loss * scale


SETTINGS = {"count": 0}
NUMBER = 0


class GlobalCounter(Trained):
    def on_loss_ready(self, state):
        global NUMBER
        NUMBER += 1
        SETTINGS["count"] += 1
        state.loss = state.loss * min(NUMBER, 4) * min(SETTINGS["count"], 4)


class TorchMetricHeld(Trained):
    def __init__(self):
        import torchmetrics

        self.metric = torchmetrics.MeanMetric(nan_strategy="disable")

    def on_loss_ready(self, state):
        self.metric.update(state.loss.detach())
        state.loss = state.loss * self.metric.compute()


CHANGES = {
    "rebound tensor": Ema,
    "counter": Counter,
    "list": ListCounter,
    "deque": Window,
    "class attribute": ClassCounter,
    "own generators": OwnRandom,
    "global generators": GlobalRandom,
    "swallowed refusal": Swallows,
    "globals": GlobalCounter,
    "held torchmetric": TorchMetricHeld,
}


def _reset_globals():
    global NUMBER
    NUMBER = SETTINGS["count"] = ClassCounter.count = 0


def _with(make_callback):
    def make():
        _reset_globals()
        model = loops.torch_model()
        loop = FitLoop(model, loops.loader(), callbacks=loops.torch_stack(model))
        return loop.attach(make_callback())

    return make


@pytest.mark.parametrize("name", CHANGES)
def test_a_step_that_changes_python_state_runs_eagerly(name):
    result = loops.compare(_with(CHANGES[name]), replays=False)
    (warning,) = result.warnings
    assert f"{CHANGES[name].__name__} at LOSS_READY: " in warning
    assert "test_record_python_state.py:" in warning


def test_without_the_fence_a_counter_stands_still(monkeypatch):
    monkeypatch.setattr(PythonState, "change", lambda self, before: None)
    monkeypatch.setattr("fitkit.record.recording.is_due", lambda program: False)
    eager = loops.run(_with(Counter), None)
    frozen = loops.run(_with(Counter), Record("interpret"))
    assert frozen.replays
    assert not loops.same(eager, frozen)


def test_a_closure_that_counts_is_refused():
    def make():
        count, seen = 0, []
        model = loops.torch_model()
        loop = FitLoop(model, loops.loader(), callbacks=loops.torch_stack(model))

        @loop.on(Event.LOSS_READY)
        def weigh(state):
            nonlocal count
            count += 1
            seen.append(count)
            state.loss = state.loss * len(seen)

        return loop

    result = loops.compare(make, replays=False)
    assert "weigh at LOSS_READY" in result.warnings[0]
    assert "in weigh" in result.warnings[0]


class CountingModule(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(8, 8)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.linear(x) * min(self.calls, 5)


class RebindingModule(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x):
        self.count = self.count + 1
        return x / self.count


class CountingLayer(keras.layers.Layer):
    def build(self, shape):
        self.calls_seen = 0

    def call(self, x):
        self.calls_seen += 1
        return x * min(self.calls_seen, 5)


@pytest.mark.parametrize("kind", [CountingModule, RebindingModule])
def test_a_module_that_counts_is_refused(kind):
    def make():
        model = loops.torch_model(kind())
        return FitLoop(model, loops.loader(), callbacks=loops.torch_stack(model))

    result = loops.compare(make, replays=False)
    assert f"{kind.__name__}" in result.warnings[0]


def test_a_layer_that_counts_is_refused():
    def make():
        model = loops.keras_model(CountingLayer())
        return FitLoop(model, loops.loader(), callbacks=loops.keras_stack(model))

    result = loops.compare(make, replays=False)
    assert "CountingLayer.calls_seen" in result.warnings[0]


class Penalty(keras.layers.Layer):
    def __init__(self):
        super().__init__()
        self.rate = 0.1

    def call(self, x):
        self.add_loss(self.rate * (x**2).mean())
        return x * self.rate


def test_added_losses_of_keras_are_its_own_affair():
    def make():
        model = loops.keras_model(Penalty())
        return FitLoop(model, loops.loader(), callbacks=loops.keras_stack(model))

    loops.compare(make)


# -- what a program depends on: changed between two steps, it takes effect -----------------------


class Helper:
    def __init__(self):
        self.scale = 1.0

    def weigh(self, state):
        state.loss = state.loss * self.scale


class Slotted:
    __slots__ = ("scale",)

    def __init__(self):
        self.scale = 1.0


class Scale(Trained):
    factor = 1.0

    def __init__(self):
        self.scale = 1.0
        self.options = {"inner": {"scale": 1.0}}
        self.helper = Helper()
        self.slotted = Slotted()
        self.teacher = torch.nn.Dropout(0.5)

    def on_loss_ready(self, state):
        self._weigh(state)

    def _weigh(self, state):
        noise = self.teacher(torch.ones(3)).sum() * 0.1
        scale = self.scale * self.options["inner"]["scale"] * self.factor * self.slotted.scale
        state.loss = state.loss * scale * self.helper.scale * SETTINGS.get("scale", 1.0) + noise


def _scaled(change):
    def make():
        SETTINGS.pop("scale", None)
        Scale.factor = 1.0
        model = loops.torch_model()
        loop = FitLoop(model, loops.loader(), callbacks=loops.torch_stack(model))
        scale = Scale()
        loop.attach(scale)

        @loop.on(Event.BATCH_END, when=lambda state: state.num_batches == 7)
        def now(state):
            change(scale)

        return loop

    return make


EDITS = {
    "attribute": lambda c: setattr(c, "scale", 2.0),
    "nested dict": lambda c: c.options["inner"].update(scale=2.0),
    "class attribute": lambda c: setattr(Scale, "factor", 2.0),
    "helper object": lambda c: setattr(c.helper, "scale", 2.0),
    "another helper": lambda c: setattr(c, "helper", _with_scale(3.0)),
    "slot": lambda c: setattr(c.slotted, "scale", 2.0),
    "global dict": lambda c: SETTINGS.update(scale=2.0),
    "mode of a held module": lambda c: c.teacher.eval(),
    "attribute of a held module": lambda c: setattr(c.teacher, "p", 0.1),
}


def _with_scale(scale):
    helper = Helper()
    helper.scale = scale
    return helper


@pytest.mark.parametrize("name", EDITS)
def test_what_a_step_reads_takes_effect(name):
    eager = loops.run(_scaled(lambda c: None), None)
    changed = loops.compare(_scaled(EDITS[name]))
    assert not loops.same(eager, changed)
    assert changed.replays >= 8
    assert not changed.warnings


def _dilate(model):
    model[1].dilation = (2,)
    model[1]._reversed_padding_repeated_twice = [2, 2]


def _pass_no_gradient(module, grads, _):
    return tuple(None if grad is None else grad * 0 for grad in grads)


LAYERS = {
    "Keras norm without weights": (
        lambda: loops.keras_model(keras.layers.BatchNormalization(center=False, scale=False)),
        lambda model: setattr(model.layers[1], "trainable", False),
    ),
    "hook of a Keras layer": (
        loops.keras_model,
        lambda model: model.layers[0].register_forward_hook(lambda layer, x, y: y * 0.5),
    ),
    "backward hook": (
        loops.torch_model,
        lambda model: model[2].register_full_backward_hook(_pass_no_gradient),
    ),
    "tuple": (
        lambda: torch.nn.Sequential(
            torch.nn.Unflatten(1, (1, 6)),
            torch.nn.Conv1d(1, 4, 3, padding="same"),
            torch.nn.AdaptiveAvgPool1d(1),
            torch.nn.Flatten(),
        ),
        _dilate,
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_what_a_layer_of_a_library_reads_takes_effect(name):
    make_model, change = LAYERS[name]

    def make(change=change):
        model = make_model()
        is_torch = isinstance(model, torch.nn.Sequential)
        stack = loops.torch_stack(model) if is_torch else loops.keras_stack(model)
        loop = FitLoop(model, loops.loader(), callbacks=stack)

        @loop.on(Event.BATCH_END, when=lambda state: state.num_batches == 7)
        def now(state):
            change(state.model)

        return loop

    eager = loops.run(lambda: make(lambda model: None), None)
    changed = loops.compare(make)
    assert not loops.same(eager, changed)
    assert changed.replays >= 8
    assert not changed.warnings


class Table(Trained):
    def __init__(self):
        self.table = dict.fromkeys(range(100), 1.0)

    def on_loss_ready(self, state, *, options={"scale": 1.0}):  # noqa: B006  # it is edited
        scale = self.table[90] * options["scale"] * (2.0 if "extra" in self.table else 1.0)
        state.loss = state.loss * scale


def _replace_key(table):
    table.table["extra"] = table.table.pop(99)


TABLES = {
    "item far behind": lambda table: table.table.update({90: 2.0}),
    "key": _replace_key,
    "keyword default": lambda _: Table.on_loss_ready.__kwdefaults__["options"].update(scale=2.0),
}


@pytest.mark.parametrize("name", TABLES)
def test_containers_are_read_whole(name):
    def make():
        Table.on_loss_ready.__kwdefaults__["options"]["scale"] = 1.0
        model, table = loops.torch_model(), Table()
        loop = FitLoop(model, loops.loader(), callbacks=loops.torch_stack(model))
        loop.attach(table)
        loop.on(Event.BATCH_END, when=lambda state: state.num_batches == 7)(
            lambda state: TABLES[name](table)
        )
        return loop

    assert loops.compare(make).replays >= 8


def test_without_the_key_a_changed_attribute_is_not_seen(monkeypatch):
    monkeypatch.setattr(PythonState, "version", lambda self: 0)
    monkeypatch.setattr("fitkit.record.recording.is_due", lambda program: False)
    eager = loops.run(_scaled(EDITS["attribute"]), None)
    assert not loops.same(eager, loops.run(_scaled(EDITS["attribute"]), Record("interpret")))


@pytest.mark.parametrize("kind", ["method", "partial", "function"])
def test_functions_lead_to_what_they_use(kind):
    def make():
        helper, model = Helper(), loops.torch_model()
        loop = FitLoop(model, loops.loader(), callbacks=loops.torch_stack(model))
        free = functools.partial(_weigh, helper)
        function = {"method": helper.weigh, "partial": free, "function": lambda s: free(s)}[kind]
        loop.on(Event.LOSS_READY)(function)

        @loop.on(Event.BATCH_END, when=lambda state: state.num_batches == 7)
        def now(state):
            helper.scale = 2.0

        return loop

    result = loops.compare(make)
    assert result.replays >= 8


def _weigh(helper, state):
    state.loss = state.loss * helper.scale


def test_a_host_side_counter_costs_no_program():
    class Counts(Trained):
        def __init__(self):
            self.steps, self.bar = 0, Helper()
            self.bar.position = 0

        def on_batch_end(self, state):
            self.steps += 1
            self.bar.position = self.steps

        def on_loss_ready(self, state):
            state.loss = state.loss * 0.5

    result = loops.compare(_with(Counts), epochs=5)
    assert not result.warnings
    assert len(result.record.recordings) == 1


def test_a_loss_function_leads_to_what_it_uses():
    def make(kind):
        settings = {"scale": 1.0}

        def function(a, b):
            outputs, targets = (a, b) if kind is TorchLoss else (b, a)
            loss = torch.nn.functional.cross_entropy(outputs, targets.long(), reduction="none")
            return (
                loss.mean() * settings["scale"] if kind is TorchLoss else loss * settings["scale"]
            )

        model = loops.torch_model()
        stack = loops.torch_stack(model, loss=kind(function))
        loop = FitLoop(model, loops.loader(), callbacks=stack)

        @loop.on(Event.BATCH_END, when=lambda state: state.num_batches == 7)
        def now(state):
            settings["scale"] = 2.0

        return loop

    for kind in (TorchLoss, KerasLoss):
        loops.compare(functools.partial(make, kind))


def test_a_changing_attribute_keeps_the_number_of_versions_bounded():
    class Moves(Trained):
        scale = 1.0

        def on_batch_begin(self, state):
            self.scale = 1 + state.num_batches / 1000

        def on_loss_ready(self, state):
            state.loss = state.loss * self.scale

    result = loops.compare(_with(Moves), epochs=60, replays=None)
    assert any("more than" in warning for warning in result.warnings)
    assert len(result.record._python._versions) <= 256
