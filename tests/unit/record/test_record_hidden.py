"""What a step depends on in roundabout ways, changed in the middle of a pass."""

import gc
import weakref
from collections import ChainMap, UserDict
from types import MappingProxyType

import pytest
import torch
from torch import nn

from fitkit import Callback, Event, FitLoop, Record
from fitkit.loop.state import State
from fitkit.record.python_state import PythonState
from fitkit.record.region import _HOST_FIELDS
from tests.unit.record import loops, settings_of_a_user


class Multiply(Callback):
    """Multiplies the loss with what a function finds."""

    def __init__(self, factor, **attributes):
        self.factor = factor
        vars(self).update(attributes)

    def on_loss_ready(self, state):
        state.loss = state.loss * self.factor(self)


class Bare:
    pass


def with_default():
    class WithDefault(Multiply):
        scale = 1.0

    return WithDefault(lambda self: self.scale, note=1)


def function_of_another_module():
    settings_of_a_user.RATE = 1.0

    class Calls(Callback):
        def on_loss_ready(self, state):
            state.loss = settings_of_a_user.scaled(state.loss)

    return Calls(), lambda: setattr(settings_of_a_user, "RATE", 0.5)


def import_inside_a_function():
    settings_of_a_user.RATE = 1.0

    class Imports(Callback):
        def on_loss_ready(self, state):
            from tests.unit.record.settings_of_a_user import scaled

            state.loss = scaled(state.loss)

    return Imports(), lambda: setattr(settings_of_a_user, "RATE", 0.5)


def attribute_that_hides_the_default():
    callback = with_default()
    return callback, lambda: setattr(callback, "scale", 0.5)


def attribute_that_takes_the_place_of_another():
    callback = with_default()
    return callback, lambda: (delattr(callback, "note"), setattr(callback, "scale", 0.5))


def attribute_that_is_only_asked_for():
    held = Bare()
    held.note = 1
    callback = Multiply(lambda self: 0.5 if hasattr(self.held, "off") else 1.0, held=held)
    return callback, lambda: (delattr(held, "note"), setattr(held, "off", 1))


def weak_reference():
    held = Bare()
    held.rate = 1.0
    callback = Multiply(lambda self: self.held().rate, held=weakref.ref(held), _keep=held)
    return callback, lambda: setattr(held, "rate", 0.5)


def wrapped(wrap, get=lambda outer: outer["rate"]):
    def make():
        inner = {"rate": 1.0}
        outer = wrap(inner)
        change = outer.update if isinstance(outer, UserDict) else inner.update
        return Multiply(lambda self: get(self.outer), outer=outer), lambda: change(rate=0.5)

    return make


def attribute_of_a_metaclass():
    class Meta(type):
        rate = 1.0

    class Settings(metaclass=Meta):
        pass

    return Multiply(lambda self: Settings.rate), lambda: setattr(Meta, "rate", 0.5)


CASES = {
    "function of another module": function_of_another_module,
    "import inside a function": import_inside_a_function,
    "attribute that hides the default": attribute_that_hides_the_default,
    "attribute in the place of another": attribute_that_takes_the_place_of_another,
    "attribute only asked for": attribute_that_is_only_asked_for,
    "weak reference": weak_reference,
    "UserDict": wrapped(UserDict),
    "ChainMap": wrapped(lambda inner: ChainMap({}, inner)),
    "read-only view": wrapped(MappingProxyType),
    "metaclass": attribute_of_a_metaclass,
}


def changing(callback, change, model):
    """A loop in which something changes in the middle of a pass, long after the first replays."""
    loop = FitLoop(model, loops.loader(), callbacks=loops.torch_stack(model))
    if callback is not None:
        loop.attach(callback)

    @loop.on(Event.BATCH_END)
    def change_once(state):
        if state.num_updates == 22:  # replay 32 is the next to be compared
            change()

    return loop


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_change_is_seen_at_the_next_step(case):
    loops.compare(lambda: changing(*case(), loops.torch_model()), epochs=5)


def test_nobody_sees_it_if_versions_do_not_change(monkeypatch):
    monkeypatch.setattr(PythonState, "version", lambda self: 0)
    case = CASES["attribute that hides the default"]
    runs = [
        loops.run(lambda: changing(*case(), loops.torch_model()), record, epochs=5)
        for record in (None, Record("interpret"))
    ]
    assert not loops.same(*runs)


def test_an_attribute_of_a_module_that_hides_the_default_is_seen():
    class Scaled(nn.Module):
        scale = 1.0

        def forward(self, x):
            return x * self.scale

    def make():
        middle = Scaled()
        return changing(None, lambda: setattr(middle, "scale", 0.5), loops.torch_model(middle))

    loops.compare(make, epochs=5)


def test_a_method_that_is_replaced_on_a_librarys_module_is_seen():
    def make():
        model = loops.torch_model()
        forward = model[0].forward
        return changing(None, lambda: setattr(model[0], "forward", lambda x: forward(x) / 2), model)

    loops.compare(make, epochs=5)


def test_an_attribute_of_a_parameter_is_seen():
    class Factors(Callback):
        def on_grads_ready(self, state):
            for parameter in state.model.parameters():
                parameter.grad.mul_(parameter.factor)

    def make():
        model = loops.torch_model()
        parameters = list(model.parameters())
        for parameter in parameters:
            parameter.factor = 1.0
        return changing(Factors(), lambda: setattr(parameters[0], "factor", 0.0), model)

    loops.compare(make, epochs=5)


def test_a_hook_of_all_modules_is_seen():
    handles = []

    def register():
        halve = lambda module, inputs, outputs: outputs / 2  # noqa: E731
        handles.append(nn.modules.module.register_module_forward_hook(halve))

    def drive(loop):
        loop.fit(epochs=5)
        handles.pop().remove()

    loops.compare(lambda: changing(None, register, loops.torch_model()), drive=drive)


def test_weights_tied_by_their_memory_are_not_moved_by_a_trace():
    def make():
        model = loops.torch_model(nn.Linear(8, 8), nn.Linear(8, 8))

        def tie():
            model[3].weight.data = model[2].weight.data

        return changing(None, tie, model)

    loops.compare(make, epochs=5)


def test_every_field_of_the_state_is_known_to_change_or_not():
    of_the_batch = {"batch", "inputs", "targets", "sample_weight", "outputs", "loss", "losses"}
    of_the_batch |= {"grad_scale", "step_values", "step_logs", "extra", "packed", "pending"}
    of_the_batch.add("_given")
    in_the_key = {"phase", "turn", "batch_size", "opens_update", "closes_update", "needs", "rates"}
    settled = {"model", "device", "is_main", "run_dir", "unpack", "logged", "log_owners"}
    assert set(State.__slots__) - _HOST_FIELDS == of_the_batch | in_the_key | settled


def test_what_a_program_depended_on_is_let_go():
    class Previous(Callback):
        def __init__(self):
            self.previous = torch.zeros(())

        def on_loss_ready(self, state):
            state.loss = state.loss + self.previous

        def on_batch_end(self, state):
            self.previous = torch.zeros(())  # another tensor, so another program
            made.add(self.previous)

    made = weakref.WeakSet()
    model = loops.torch_model()
    loop = FitLoop(model, loops.loader(), callbacks=[*loops.torch_stack(model), Previous()])
    record = Record("interpret", max_programs=3)
    loop.attach(record)
    with pytest.warns(UserWarning, match="more than 3 kinds"):
        loop.fit(epochs=4)
    gc.collect()
    assert len(made) <= 5  # that of each program, the one that was last seen, the present one
    loop.detach(record)
    gc.collect()
    assert len(made) == 1
