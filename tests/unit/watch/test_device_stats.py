"""DeviceStats: what the process uses, at the updates that are due, without a sync."""

import time
from types import SimpleNamespace

import pytest
import torch

from fitkit import Callback, DeviceStats, Event, Record
from fitkit.watch import process
from tests.unit.watch.helpers import counted_syncs, make_loop


class Works(Callback):
    """Keep one core busy, or sleep."""

    def __init__(self, seconds, *, busy):
        self.seconds, self.busy = seconds, busy

    def on_batch_begin(self, state):
        end = time.perf_counter() + self.seconds
        while self.busy and time.process_time() >= 0 and time.perf_counter() < end:
            pass
        if not self.busy:
            time.sleep(self.seconds)


@pytest.mark.parametrize("record", [False, True])
def test_it_is_logged_where_it_is_due_and_its_mean_is_in_the_history(record):
    loop = make_loop(DeviceStats(every=2), *([Record("interpret")] if record else []))
    seen = []
    loop.on(Event.BATCH_END)(
        lambda state: seen.append({k for k in state.step_values if k.startswith("device/")})
    )
    history = loop.fit(2)
    names = {"device/cpu_cores", "device/rss_mb"}
    assert seen[:2] == [set(), names]
    assert [bool(names) for names in seen].count(True) == 5
    assert set(history.rows[-1]) > names


def test_busy_and_idle_are_told_apart():
    busy = make_loop(DeviceStats(every=5), first=[Works(0.02, busy=True)]).fit(1)
    idle = make_loop(DeviceStats(every=5), first=[Works(0.02, busy=False)]).fit(1)
    assert idle["device/cpu_cores"][0] < 0.6 * busy["device/cpu_cores"][0]
    assert 0 < busy["device/cpu_cores"][0] < 64


def test_the_memory_grows_by_what_is_allocated():
    before = process.resident_bytes()
    held = torch.ones(10_000_000)
    assert 38e6 < process.resident_bytes() - before < 60e6
    assert held.nbytes == 40e6
    history = make_loop(DeviceStats(every=1)).fit(1)
    assert history["device/rss_mb"][0] == pytest.approx(process.resident_bytes() / 1e6, rel=0.1)


def test_a_system_that_does_not_tell_is_no_error(monkeypatch, tmp_path):
    monkeypatch.setattr(process, "_STATM", tmp_path / "nothing")
    history = make_loop(DeviceStats(every=1)).fit(1)
    assert "device/rss_mb" not in history
    assert "device/cpu_cores" in history


class FakeCuda:
    """What torch.cuda would say."""

    def __init__(self, *, tells):
        self.tells, self.num_asked = tells, 0

    def utilization(self, device):
        self.num_asked += 1
        if not self.tells:
            raise ModuleNotFoundError("pynvml")
        return 75

    def memory_allocated(self, device):
        return 5_000_000

    def memory_reserved(self, device):
        return 8_000_000

    def max_memory_allocated(self, device):
        return 6_000_000


@pytest.mark.parametrize("tells", [True, False])
def test_what_a_gpu_says(monkeypatch, tells):
    stats, logged, cuda = DeviceStats(), {}, FakeCuda(tells=tells)
    monkeypatch.setattr(torch, "cuda", cuda)
    state = SimpleNamespace(
        device=torch.device("cpu"), log=lambda name, value, reduce: logged.update({name: value})
    )
    stats._log_cuda(state)
    stats._log_cuda(state)
    found = {name.removeprefix("device/"): float(value) for name, value in logged.items()}
    expected = {"gpu_memory_mb": 5.0, "gpu_reserved_mb": 8.0, "gpu_peak_mb": 6.0}
    assert found == (expected | {"gpu_percent": 75.0} if tells else expected)
    assert cuda.num_asked == (2 if tells else 1)


def test_no_step_waits_for_the_device(monkeypatch):
    loop = make_loop(DeviceStats(every=1))
    loop.fit(1)
    seen = []
    with counted_syncs(monkeypatch) as syncs:
        loop.on(Event.BATCH_END)(lambda state: seen.append(len(syncs)))
        loop.fit(1)
    assert seen[-1] == seen[0]
