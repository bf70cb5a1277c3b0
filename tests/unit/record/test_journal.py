"""Tracing leaves the tensors of a step alone, also where torch computes on them for real."""

import pytest
import torch

from fitkit.record import trace
from fitkit.record.guard import Journal

X = torch.ones(3)
WRITES = {
    "add number": lambda t: t.add_(1),
    "add state": lambda t: t.add_(torch.ones(3)),
    "operator": lambda t: t.__imul__(3),
    "copy": lambda t: t.copy_(torch.full((3,), 7.0)),
    "copy state": lambda t: t.copy_(OTHER),
    "fill": lambda t: t.fill_(4),
    "view": lambda t: t[1:].sub_(1),
    "foreach": lambda t: torch._foreach_add_([t, t], 1),
}
OTHER = torch.full((3,), 5.0)


@pytest.mark.parametrize("parameter", [False, True])
@pytest.mark.parametrize("name", WRITES)
def test_writes_happen_in_replays_only(name, parameter):
    state = torch.nn.Parameter(torch.arange(3.0)) if parameter else torch.arange(3.0)

    def region(batch):
        with torch.no_grad():
            WRITES[name](state)
        return [batch[0] + state]

    step = trace(region, (X,))
    assert torch.equal(state.detach(), torch.arange(3.0))
    expected = torch.arange(3.0)
    WRITES[name](expected)
    with torch.no_grad():
        assert torch.equal(step.module(*step.tensors([X]))[0], X + expected)
    assert torch.equal(state.detach(), expected)


def test_the_journal_is_needed(monkeypatch):
    monkeypatch.setattr(Journal, "undo", lambda self: None)
    count = torch.zeros(())
    trace(lambda batch: [batch[0] * count.add_(1)], (X,))
    assert count == 1
