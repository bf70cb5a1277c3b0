"""What a step reads is replaced, and later what took its place changes: a walk must go there."""

import functools
import weakref
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from fitkit import Callback, Event, FitLoop, Record, TensorLoader, supervised
from fitkit.record.reach import Reach
from fitkit.record.seen import Seen
from tests.unit.record import settings_of_a_user

HELD = SimpleNamespace(rate=1.0)


class Holds:
    """An object with one number, of the user's."""

    def __init__(self, rate=1.0):
        self.rate = rate


class Slotted:
    __slots__ = ("inner",)

    def __init__(self):
        self.inner = Holds()


class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.by = 1.0

    def forward(self, x):
        return x * self.by


class Weigh(Callback):
    def __init__(self, read):
        self.read = read

    def on_loss_ready(self, state):
        state.loss = state.loss * self.read()


def attribute(loop):
    outer = Holds()
    outer.inner = Holds()
    return lambda: outer.inner.rate, lambda new: setattr(outer, "inner", new)


def item(loop):
    held = [Holds()]
    return lambda: held[0].rate, lambda new: held.__setitem__(0, new)


def value(loop):
    held = {"it": Holds()}
    return lambda: held["it"].rate, lambda new: held.update(it=new)


def slot(loop):
    held = Slotted()
    return lambda: held.inner.rate, lambda new: setattr(held, "inner", new)


def cell(loop):
    inner = Holds()

    def swap(new):
        nonlocal inner
        inner = new

    return lambda: inner.rate, swap


def variable(loop):
    globals()["HELD"] = Holds()
    return lambda: HELD.rate, lambda new: globals().update(HELD=new)


def variable_elsewhere(loop):
    settings_of_a_user.HELD = Holds()
    return lambda: settings_of_a_user.HELD.rate, lambda n: setattr(settings_of_a_user, "HELD", n)


def default(loop):
    first = Holds()

    def read(inner=first):
        return inner.rate

    return read, lambda new: setattr(read, "__defaults__", (new,))


def of_a_class(loop):
    class Kind:
        inner = Holds()

    held = Kind()
    return lambda: held.inner.rate, lambda new: setattr(Kind, "inner", new)


def another_class(loop):
    class Kind:
        @property
        def rate(self):
            return 1.0

    held = Kind()

    def swap(new):
        class Other:
            @property
            def rate(self):
                return new.rate

        held.__class__ = Other

    return lambda: held.rate, swap


def behind_a_reference(loop):
    held = SimpleNamespace(inner=Holds())
    kept = [held.inner]
    held.inner = weakref.ref(held.inner)

    def swap(new):
        kept.append(new)
        held.inner = weakref.ref(new)

    return lambda: held.inner().rate, swap


def hook_of_a_weight(loop):
    weight = loop.model[0].weight
    return lambda: 1.0, lambda new: weight.register_hook(lambda gradient: gradient * new.rate)


def layer(loop):
    def swap(new):
        scale = loop.model[1] = Scale()
        new.layer = scale

    return lambda: 1.0, swap


def hook_of_a_layer(loop):
    return (
        lambda: 1.0,
        lambda new: loop.model[0].register_forward_hook(lambda module, args, out: out * new.rate),
    )


def private_of_fitkit(loop):
    def swap(new):
        loss = next(each for each in loop.callbacks if type(each).__name__ == "TorchLoss")
        loss._loss = lambda out, targets: nn.functional.cross_entropy(out * new.rate, targets)

    return lambda: 1.0, swap


def dict_of_an_object(loop):
    held = Holds()
    return lambda: held.rate, lambda new: setattr(held, "__dict__", vars(new))


def function_of_a_listener(loop):
    def scale(state, by=1.0):
        state.loss = state.loss * by

    def swap(new):
        def scale(state):
            state.loss = state.loss * new.rate

        listener.function = scale

    listener = loop.on(Event.LOSS_READY)(scale)
    return lambda: 1.0, swap


def default_of_what_names_nothing(loop):
    def hook(module, arguments, out, box=(1.0,)):
        return out * box[0]

    def swap(new):
        new.box = [1.0]
        hook.__defaults__ = (new.box,)

    loop.model[0].register_forward_hook(hook)
    return lambda: 1.0, swap


def keyword_default(loop):
    first = Holds()

    def read(*, inner=first):
        return inner.rate

    return read, lambda new: read.__kwdefaults__.update(inner=new)


def of_a_function(loop):
    def read():
        return read.inner.rate

    read.inner = Holds()
    return read, lambda new: setattr(read, "inner", new)


def bases(loop):
    class First:
        inner = Holds()

    class Kind(First):
        pass

    def swap(new):
        class Second:
            inner = new

        Kind.__bases__ = (Second,)

    held = Kind()
    return lambda: held.inner.rate, swap


def class_of_slots(loop):
    class Kind:
        __slots__ = ("by",)

        def rate(self):
            return self.by

    def swap(new):
        class Other:
            __slots__ = ("by",)

            def rate(self):
                return new.rate

        held.__class__ = Other

    held = Kind()
    held.by = 1.0
    return lambda: held.rate(), swap


def parts_of_a_partial(loop):
    held = functools.partial(getattr, Holds())
    return lambda: held("rate"), lambda new: held.__setstate__((getattr, (new,), {}, None))


CASES = [
    *(attribute, item, value, slot, cell, variable, variable_elsewhere, default, of_a_class),
    *(another_class, behind_a_reference, hook_of_a_weight, layer, hook_of_a_layer),
    *(private_of_fitkit, dict_of_an_object, function_of_a_listener, default_of_what_names_nothing),
    *(keyword_default, of_a_function, bases, class_of_slots, parts_of_a_partial),
]


def weights_after(case, *callbacks):
    """Weights after 5 passes of 6 steps: a swap before the third, a change before the fourth."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), Scale(), nn.Linear(4, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader = TensorLoader(torch.randn(48, 4), torch.arange(48) % 3, batch_size=8)
    loop = FitLoop(model, loader, device="cpu")
    loop.attach(supervised(loss=nn.CrossEntropyLoss(), optimizer=optimizer))
    read, swap = case(loop)
    loop.attach(Weigh(read), *callbacks)
    new = Holds()
    loop.fit(epochs=2)
    swap(new)
    loop.fit(epochs=1)
    new.rate = 0.25
    if hasattr(new, "layer"):
        new.layer.by = 0.25
    if hasattr(new, "box"):
        new.box[0] = 0.25
    loop.fit(epochs=2)
    return [parameter.detach().clone() for parameter in model.parameters()]


def equal(ours, theirs):
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("case", CASES)
def test_a_walk_goes_where_things_have_gone(case):
    record = Record("interpret")
    assert equal(weights_after(case, record), weights_after(case))
    assert sum(each.program.num_replays for each in record.recordings.values()) >= 20


@pytest.mark.parametrize("case", CASES)
def test_without_another_walk_it_does_not(case, monkeypatch):
    monkeypatch.setattr("fitkit.record.seen.Seen.is_same", lambda self: True)
    monkeypatch.setattr("fitkit.record.recording.is_due", lambda program: False)
    assert not equal(weights_after(case, Record("interpret")), weights_after(case))


class Counts(nn.Module):
    """Has a number where Keras keeps its layers."""

    def __init__(self):
        super().__init__()
        self._layers = 3

    def forward(self, x):
        return x * self._layers


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("make", [Counts, lambda: torch.jit.script(nn.Linear(4, 4))])
def test_a_module_that_keeps_something_else_there_is_recorded(make):
    record = Record("interpret")
    model = nn.Sequential(nn.Linear(4, 4), make(), nn.Linear(4, 3))
    loader = TensorLoader(torch.randn(48, 4), torch.arange(48) % 3, batch_size=8)
    loop = FitLoop(model, loader, device="cpu")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loop.attach(supervised(loss=nn.CrossEntropyLoss(), optimizer=optimizer), record)
    loop.fit(epochs=2)
    assert sum(each.program.num_replays for each in record.recordings.values()) == 11


def num_walks(monkeypatch, epochs):
    walks, walk = [], Reach._walk
    monkeypatch.setattr(Reach, "_walk", lambda self: (walks.append(1), walk(self))[1])
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), Scale(), nn.Linear(4, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader = TensorLoader(torch.randn(48, 4), torch.arange(48) % 3, batch_size=8)
    loop = FitLoop(model, loader, loader, device="cpu")
    loop.attach(supervised(loss=nn.CrossEntropyLoss(), optimizer=optimizer), Record("interpret"))
    loop.fit(epochs=epochs)
    return len(walks)


def test_passes_that_change_nothing_walk_no_more(monkeypatch):
    with monkeypatch.context() as one, monkeypatch.context() as other:
        assert num_walks(one, 4) == num_walks(other, 12)


def test_tensors_are_not_held():
    thing, seen = Holds(torch.zeros(3)), Seen()
    seen.add_object(thing)
    seen.close()
    first = weakref.ref(thing.rate)
    thing.rate = torch.zeros(3)
    assert first() is None
    assert seen.is_same()
    thing.rate = nn.Parameter(torch.zeros(3))  # which belongs to the parameters in reach
    assert not seen.is_same()
