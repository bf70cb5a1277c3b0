"""Controls: the counters of these tests see what they are there to see."""

import pytest

from fitkit import Event
from tests.unit.watch.helpers import counted_syncs, make_loop


@pytest.mark.parametrize(
    ("read", "name"),
    [
        (float, "__float__"),
        (bool, "__bool__"),
        (int, "__int__"),
        (lambda loss: loss.tolist(), "tolist"),
        (lambda loss: loss.item(), "item"),
        (lambda loss: loss.cpu(), "cpu"),
        (lambda loss: loss.numpy(), "numpy"),
        (lambda loss: 1 if loss > 0 else 0, "__bool__"),
        (lambda loss: f"{loss:.4f}", "item"),
    ],
)
def test_a_sync_in_a_callback_is_counted(monkeypatch, read, name):
    loop = make_loop()
    loop.on(Event.BATCH_END)(lambda state: read(state.loss))
    with counted_syncs(monkeypatch) as syncs:
        loop.fit(1)
    assert syncs.count(name) == 5 + (name == "tolist")  # that of the metrics


def test_a_loop_without_watchers_reads_nothing_but_the_metrics(monkeypatch):
    with counted_syncs(monkeypatch) as syncs:
        make_loop().fit(2)
    assert syncs == ["tolist"] * 2
