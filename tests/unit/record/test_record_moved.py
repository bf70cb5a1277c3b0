"""Between two replays somebody moves what the program works on: it must see that."""

import pytest
import torch
from torch import nn

from fitkit import Event, FitLoop, Record, TensorLoader, supervised
from fitkit.record import recording
from fitkit.record.optimizers import Optimizers


def weights_after(change, *callbacks, fused=False):
    """Weights after 30 steps of a loop in which `change(model, optimizer)` follows step 20."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, fused=fused)
    x = torch.randn(48, 4)
    loop = FitLoop(model, TensorLoader(x, torch.arange(48) % 3, batch_size=8))
    loop.attach(supervised(loss=nn.CrossEntropyLoss(), optimizer=optimizer), *callbacks)
    loop.on(Event.BATCH_END, when=lambda state: state.num_updates == 20)(
        lambda state: change(model, optimizer)
    )
    loop.fit(epochs=5)
    return [parameter.detach().clone() for parameter in model.parameters()]


def clear_slots(model, optimizer):
    optimizer.state.clear()


def rebind_slot(model, optimizer):
    optimizer.state[model[0].weight]["momentum_buffer"] = torch.zeros(4, 4)


def transpose_weight(model, optimizer):
    model[0].weight.data = model[0].weight.data.t()


def hook_gradient(model, optimizer):
    model[0].weight.register_hook(lambda gradient: gradient * 0)


CHANGES = [clear_slots, rebind_slot, transpose_weight, hook_gradient]


def equal(ours, theirs):
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("change", CHANGES)
def test_the_replay_follows(change):
    record = Record("interpret")
    assert equal(weights_after(change, record), weights_after(change))
    assert sum(r.program.num_replays for r in record.recordings.values() if r.program) >= 10


def test_without_watching_the_slots_it_would_not(monkeypatch):
    monkeypatch.setattr(Optimizers, "slots", lambda self: ())
    assert not equal(weights_after(clear_slots, Record("interpret")), weights_after(clear_slots))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_compiled_kernels_follow_a_transposed_weight(monkeypatch):
    ours, theirs = (
        weights_after(transpose_weight, Record("inductor")),
        weights_after(transpose_weight),
    )
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    monkeypatch.setattr(recording, "_layout", lambda tensors: [])
    wrong = weights_after(transpose_weight, Record("inductor"))
    assert not all(torch.allclose(a, b, atol=1e-5) for a, b in zip(wrong, theirs, strict=True))
