"""What a step reads besides tensors changes between two replays: a new program must be made."""

import itertools
import weakref
from argparse import Namespace
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import torch
from torch import nn

from fitkit import Callback, Event, FitLoop, Record, TensorLoader, supervised
from fitkit.record import reach

RATES = {"helper": 1.0}
ARRAY = np.ones(2)


class Weigh(Callback):
    """Multiplies the loss by what a function returns."""

    def __init__(self, read):
        self.read = read

    def on_loss_ready(self, state):
        state.loss = state.loss * self.read()


def helper_1():
    return helper_2()


def helper_2():
    return helper_3()


def helper_3():
    return helper_4()


def helper_4():
    return helper_5()


def helper_5():
    return helper_6()


def helper_6():
    return RATES["helper"]


def helpers():
    RATES["helper"] = 1.0
    return helper_1, lambda: RATES.update(helper=0.5)


def array():
    ARRAY[:] = 1.0
    return lambda: float(ARRAY[1]), lambda: ARRAY.__setitem__(1, 0.5)


def namespace():
    held = SimpleNamespace(_rate=1.0)
    return lambda: held._rate, lambda: setattr(held, "_rate", 0.5)


def arguments():
    held = Namespace(rates=[1.0])
    return lambda: held.rates[0], lambda: held.rates.__setitem__(0, 0.5)


class Settings:
    rate = 1.0


def behind_a_proxy():
    held = Settings()
    proxy = weakref.proxy(held)
    return lambda: proxy.rate, lambda: setattr(held, "rate", 0.5)


def default_dtype():
    # 1 in float64, 0 in float32, which rounds the small number away
    small = lambda: ((torch.ones(1) + 1e-9 - 1) * 1e9).sum().float()  # noqa: E731
    return lambda: 2 - small(), lambda: torch.set_default_dtype(torch.float64)


def epsilon():
    return lambda: 1 + keras.config.epsilon(), lambda: keras.config.set_epsilon(0.5)


def nested():
    held = {"rate": 1.0}
    for _ in range(12):
        held = {"inner": held}
    return lambda: innermost(held)["rate"], lambda: innermost(held).update(rate=0.5)


def innermost(held):
    while "inner" in held:
        held = held["inner"]
    return held


CASES = [
    *(helpers, array, namespace, arguments, behind_a_proxy),
    *(default_dtype, epsilon, nested),
]


@pytest.fixture(autouse=True)
def settings():
    epsilon = keras.config.epsilon()
    yield
    torch.set_default_dtype(torch.float32)
    keras.config.set_epsilon(epsilon)


def weights_after(case, *callbacks, epochs=5):
    """Weights after 6 steps per epoch; a value that the step reads changes after step 20."""
    torch.set_default_dtype(torch.float32)
    keras.config.set_epsilon(1e-7)
    torch.manual_seed(0)
    read, change = case()
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loop = FitLoop(
        model, TensorLoader(torch.randn(48, 4), torch.arange(48) % 3, batch_size=8), device="cpu"
    )
    loop.attach(supervised(loss=nn.CrossEntropyLoss(), optimizer=optimizer), Weigh(read))
    loop.attach(*callbacks)
    loop.on(Event.BATCH_END, when=lambda state: state.num_updates == 20)(lambda state: change())
    loop.fit(epochs=epochs)
    return [parameter.detach().clone() for parameter in model.parameters()]


def equal(ours, theirs):
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def num_replays(record):
    return sum(each.program.num_replays for each in record.recordings.values() if each.program)


@pytest.mark.parametrize("case", CASES)
def test_the_replay_follows(case):
    record = Record("interpret")
    assert equal(weights_after(case, record), weights_after(case))
    assert num_replays(record) >= 24


@pytest.mark.parametrize("case", CASES)
def test_without_the_watch_it_does_not(case, monkeypatch):
    monkeypatch.setattr("fitkit.record.python_state.PythonState.version", lambda self: 0)
    monkeypatch.setattr("fitkit.record.key._settings", lambda device: 0)
    monkeypatch.setattr("fitkit.record.recording.is_due", lambda program: False)
    assert not equal(weights_after(case, Record("interpret")), weights_after(case))


def test_what_is_nested_too_deep_is_left_to_the_audit(monkeypatch):
    monkeypatch.setattr(reach, "_MAX_DEPTH", 8)
    record = Record("interpret")
    with pytest.warns(UserWarning, match="differs from the eager step"):
        weights_after(nested, record, epochs=7)  # replay 32 is the first one compared


def iterator():
    held = itertools.chain([1.0] * 22, itertools.repeat(0.5))
    return lambda: next(held), lambda: None


def generator():
    held = (1.0 if i < 22 else 0.5 for i in range(99))
    return lambda: next(held), lambda: None


@pytest.mark.parametrize("case", [iterator, generator])
def test_an_iterator_is_refused(case):
    record = Record("interpret")
    with pytest.warns(UserWarning, match=r"a (chain|generator): it yields without a trace"):
        ours = weights_after(case, record)
    assert equal(ours, weights_after(case))
    assert num_replays(record) == 0


def test_an_iterator_that_only_host_hooks_read_does_not_matter():
    class Feeds(Callback):
        def __init__(self):
            self.supply = iter(range(99))
            self.taken = []

        def on_batch_end(self, state):
            self.taken.append(next(self.supply))

    record, feeds = Record("interpret"), Feeds()
    weights_after(namespace, feeds, record)
    assert num_replays(record) >= 24
    assert feeds.taken == list(range(30))


def test_what_the_hook_of_a_weight_reads_is_followed():
    scale = {"by": 1.0}

    def run(*callbacks):
        scale["by"] = 1.0
        torch.manual_seed(0)
        model = nn.Linear(4, 3)
        model.weight.register_hook(lambda gradient: gradient * scale["by"])
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        x, y = torch.randn(48, 4), torch.arange(48) % 3
        loop = FitLoop(model, TensorLoader(x, y, batch_size=8), callbacks=list(callbacks))
        loop.attach(supervised(loss=nn.CrossEntropyLoss(), optimizer=optimizer))
        loop.on(Event.BATCH_END, when=lambda state: state.num_updates == 20)(
            lambda state: scale.update(by=0.0)
        )
        loop.fit(epochs=5)
        return [parameter.detach().clone() for parameter in model.parameters()]

    assert equal(run(Record("interpret")), run())
