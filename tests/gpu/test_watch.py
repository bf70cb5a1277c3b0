"""What only a GPU can tell: run by `KERAS_TORCH_DEVICE=cuda pytest -m gpu`. Never run so far."""

import io
import json

import pytest
import torch

from fitkit import DeviceStats, FitLoop, Profile, Record, TensorLoader, supervised

pytestmark = pytest.mark.gpu


def loop_of(*callbacks, run_dir):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(20, 64), torch.nn.ReLU(), torch.nn.Linear(64, 1))
    x = torch.randn(640, 20)
    data = TensorLoader(x, x.sum(1, keepdim=True), batch_size=16)
    model = model.to("cuda")
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, fused=True)
    loop = FitLoop(model, data, run_dir=run_dir)
    return loop.attach(supervised(loss=torch.nn.MSELoss(), optimizer=optimizer), *callbacks)


def test_the_memory_of_the_device_is_logged(tmp_path):
    history = loop_of(DeviceStats(every=10), run_dir=tmp_path).fit(1)
    held, peak = history["device/gpu_memory_mb"][0], history["device/gpu_peak_mb"][0]
    assert 0 < held <= peak
    assert held <= history["device/gpu_reserved_mb"][0]
    assert 0 <= history["device/gpu_percent"][0] <= 100  # needs nvidia-ml-py


@pytest.mark.parametrize("backend", [None, "interpret", "cudagraph"])
def test_the_trace_has_kernels_and_a_snapshot_of_the_memory_is_beside_it(backend, tmp_path):
    profile = Profile(5, wait=15, file=io.StringIO())
    recorded = [Record(backend)] if backend else []
    loop_of(profile, *recorded, run_dir=tmp_path).fit(2)
    [path] = profile.traces
    events = json.loads(path.read_text())["traceEvents"]
    assert any(event.get("cat") == "kernel" for event in events)
    assert path.with_name(path.name.replace(".pt.trace.json", ".memory.pickle")).stat().st_size > 0
