"""When validation runs, and the modes in which models run."""

import pytest
import torch
from torch import nn

from fitkit import (
    ConfigError,
    Event,
    FitLoop,
    Forward,
    Phase,
    TensorLoader,
    TrainMode,
    Validate,
    supervised,
)
from tests.unit.loop.helpers import loader

X = torch.ones(8, 1)  # four batches of two


def make_loop(validate=None, model=None, val=None):
    model = model or nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    stack = list(supervised(loss=nn.MSELoss(), optimizer=optimizer))
    stack[-1] = validate or Validate()
    train = TensorLoader(X, X, batch_size=2)
    return FitLoop(model, train, val or TensorLoader(X, X, batch_size=4), callbacks=stack)


def validations(loop, **limits):
    """The update counts at which a validation pass began."""
    updates = []
    loop.on(Event.PASS_BEGIN, phases=[Phase.VAL])(lambda state: updates.append(state.num_updates))
    loop.fit(**limits)
    return updates


@pytest.mark.parametrize(
    ("every", "expected"),
    [
        ("1 epoch", [4, 8, 12]),
        ("2 epochs", [8]),
        (3, [3, 6, 9, 12]),
        ("6 updates", [6, 12]),
        (4, [4, 8, 12]),  # due at the end of an epoch as well: once, not twice
    ],
)
def test_every(every, expected):
    assert validations(make_loop(Validate(every)), epochs=3) == expected


def test_minutes(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("fitkit.loop.state.time.perf_counter", lambda: now[0])
    loop = make_loop(Validate("1 minute"))

    @loop.on(Event.BATCH_BEGIN)
    def half_a_minute(state):
        now[0] += 30

    assert validations(loop, epochs=2) == [2, 4, 6, 8]


def test_request():
    loop = make_loop(Validate("100 epochs"))
    loop.on(Event.BATCH_END, when=lambda state: state.num_updates == 3)(
        lambda state: state.request(Event.VALIDATE)
    )
    assert validations(loop, epochs=1) == [3]


def test_a_stop_in_mid_pass_does_not_validate():
    assert validations(make_loop(), max_steps=2) == []
    assert validations(make_loop(Validate(2)), max_steps=2) == []


def test_every_loader_is_read():
    loaders = {"a": loader(3), "b": loader(2)}
    assert validations(make_loop(val=loaders), epochs=1) == [4, 4]


def test_no_gradients_in_validation():
    loop, enabled = make_loop(), []
    loop.on(Event.LOSS_READY, phases=Phase)(
        lambda state: enabled.append((str(state.phase), torch.is_grad_enabled()))
    )
    loop.fit(epochs=1)
    assert enabled == [("train", True)] * 4 + [("val", False)] * 2
    assert torch.is_grad_enabled()


def test_modes_of_each_pass_and_afterwards():
    model = nn.Sequential(nn.Linear(1, 1), nn.Dropout(0.5), nn.BatchNorm1d(1))
    model[2].eval()  # a mode of its own: frozen statistics
    modes = {}
    loop = make_loop(model=model)
    loop.on(Event.BATCH_BEGIN, phases=Phase)(
        lambda state: modes.setdefault(str(state.phase), [m.training for m in model])
    )
    loop.fit(epochs=1)
    assert modes == {"train": [True] * 3, "val": [False] * 3}
    assert [module.training for module in (model, *model)] == [True, True, True, False]


def test_modes_are_put_back_after_an_error():
    model = nn.Sequential(nn.Linear(1, 1), nn.Dropout(0.5)).eval()
    loop = make_loop(model=model)

    @loop.on(Event.BATCH_END)
    def fail(state):
        raise KeyError("x")

    with pytest.raises(KeyError):
        loop.fit(epochs=1)
    assert not any(module.training for module in model.modules())


def test_predict_turns_dropout_off():
    model = nn.Dropout(0.5)
    loop = FitLoop(model, callbacks=[TrainMode(), Forward()])
    assert (loop.predict(TensorLoader(X)) == 1).all()
    assert model.training


def test_supervised_validates_as_often_as_it_is_told():
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    stack = supervised(loss=nn.MSELoss(), optimizer=optimizer, validate="2 epochs")
    loop = FitLoop(model, TensorLoader(X, X, batch_size=2), TensorLoader(X, X), callbacks=stack)
    assert validations(loop, epochs=4) == [8, 16]


def test_a_second_validate_is_refused():
    loop = make_loop()
    with pytest.raises(ConfigError, match=r"both Validate(.|\n)*validate=500"):
        loop.attach(Validate(3))
    assert [type(callback).__name__ for callback in loop.callbacks].count("Validate") == 1
