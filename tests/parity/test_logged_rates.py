"""The learning rates on the charts are those that the updates were made with, recorded or not."""

import keras
import pytest
import torch

from fitkit import (
    Backward,
    FitLoop,
    Forward,
    KerasApply,
    LRSchedule,
    Record,
    TensorBoard,
    TorchLoss,
    Turn,
    ZeroGrad,
    supervised,
)
from tests.unit.watch.helpers import data
from tests.unit.watch.test_tensorboard import read

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
MODES = pytest.mark.parametrize("backend", [None, "interpret", "inductor"])


OPTIMIZERS = {
    "keras": lambda model: keras.optimizers.SGD(1.0),
    "torch": lambda model: torch.optim.SGD(model.parameters(), 1.0, fused=True),
}


@MODES
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_schedule_is_drawn_as_it_was_applied(backend, kind, tmp_path):
    model = torch.nn.Linear(3, 1)
    optimizer = OPTIMIZERS[kind](model)
    loop = FitLoop(model, data(40), run_dir=tmp_path)
    loop.attach(supervised(loss=torch.nn.MSELoss(), optimizer=optimizer))
    loop.attach(LRSchedule(lambda step: 1e-3 / (step + 1)), TensorBoard(flush_every=3))
    loop.attach(*([Record(backend)] if backend else []))
    loop.fit(1)
    loop.fit(1)  # the tensor that is read may be another one
    found = read(tmp_path / "train")["step/lr"]
    wanted = [torch.tensor(1e-3 / (step + 1)).item() for step in range(20)]
    assert found == [(x + 1, pytest.approx(rate)) for x, rate in enumerate(wanted)]


@MODES
def test_turns_have_a_rate_each(backend, tmp_path):
    model = torch.nn.Linear(3, 1)
    loop = FitLoop(model, data(40), run_dir=tmp_path)
    for name, rate in {"a": 0.25, "b": 0.5}.items():
        step = [ZeroGrad(), Forward(), TorchLoss(torch.nn.MSELoss()), Backward()]
        loop.attach(Turn(name, [*step, KerasApply(keras.optimizers.SGD(rate))]))
    loop.attach(TensorBoard(), *([Record(backend)] if backend else []))
    loop.fit(1)
    train = read(tmp_path / "train")
    assert train["step/lr_a"] == [(x, 0.25) for x in range(1, 11)]
    assert train["step/lr_b"] == [(x, 0.5) for x in range(1, 11)]
