"""SAM and distillation, as the examples put them together, equal the loops written by hand."""

import runpy

import pytest
import torch
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from fitkit import Record
from tests.contract.source import ROOT


def example(name):
    return runpy.run_path(str(ROOT / "examples" / name), run_name="imported")


def recorded(loop, mode):
    for each in [c for c in loop.callbacks if isinstance(c, Record)]:
        loop.detach(each)
    if mode == "recorded":
        loop.attach(Record("interpret", strict=True))
    return loop


def assert_equal(model, expected):
    assert all(map(torch.equal, model.parameters(), expected.parameters()))


def copy_of(model):
    linear = torch.nn.Linear
    twin = torch.nn.Sequential(
        linear(64, model[0].out_features), torch.nn.ReLU(), linear(model[0].out_features, 10)
    )
    twin.load_state_dict(model.state_dict())
    return twin


def sam_by_hand(model, loader, num_updates, rho=0.05):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    loader.set_epoch(0)
    for (x, y), _ in zip(loader, range(num_updates), strict=False):
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        with torch.no_grad():
            norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
            steps = [p.grad * (rho / norm) for p in model.parameters()]
            for parameter, step in zip(model.parameters(), steps, strict=True):
                parameter.add_(step)
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        with torch.no_grad():
            for parameter, step in zip(model.parameters(), steps, strict=True):
                parameter.sub_(step)
        optimizer.step()


@pytest.mark.parametrize("mode", ["eager", "recorded"])
def test_sam(mode):
    names = example("06_sam.py")
    loop, hand = recorded(names["loop"], mode), copy_of(names["model"])
    loop.fit(max_steps=12)
    sam_by_hand(hand, names["train"], 12)
    assert_equal(loop.model, hand)
    assert loop.state.turn_updates == {"climb": 12, "descend": 12}


def distil_by_hand(student, teacher, loader, num_updates):
    optimizer = torch.optim.Adam(student.parameters(), lr=3e-3)
    loader.set_epoch(0)
    for (x, y), _ in zip(loader, range(num_updates), strict=False):
        outputs = student(x)
        with torch.no_grad():
            taught = teacher(x)
        soft = log_softmax(outputs / 3.0, dim=1), log_softmax(taught / 3.0, dim=1)
        distance = kl_div(*soft, reduction="batchmean", log_target=True)
        loss = 0.7 * 3.0**2 * distance + (1 - 0.7) * cross_entropy(outputs, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def test_distillation():
    names = example("07_distillation.py")
    loop, teacher = names["loop"], names["teaching"].model
    hand = copy_of(loop.model)
    loop.fit(max_steps=12)
    distil_by_hand(hand, teacher, names["train"], 12)
    assert_equal(loop.model, hand)
    without = example("07_distillation.py")["loop"]
    assert not torch.equal(next(without.model.parameters()), next(hand.parameters()))
