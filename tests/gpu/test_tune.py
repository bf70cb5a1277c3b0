"""What changes gradients and weights, on a CUDA device: `KERAS_TORCH_DEVICE=cuda pytest -m gpu`."""

import pytest
import torch
from torch import nn

from fitkit import EMA, Accumulate, ClipGradNorm, Event, MixedPrecision, Record
from tests.unit.tune import windows as w

pytestmark = pytest.mark.gpu

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
BACKENDS = [None, "interpret", "inductor", "cudagraph"]


def small(*, overflows):
    batches = [(x.cuda(), y.cuda()) for x, y in w.batches(64, 8)]
    if overflows:
        batches[3][0][0, 0] = 1e5  # infinite in float16
    return batches


def by_hand(dtype, batches, epochs):
    """Autocast and the scaler of torch, which asks the device at every step."""
    model = w.torch_mlp().cuda()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05, fused=True)
    scaler = torch.amp.GradScaler("cuda", init_scale=2.0**10, enabled=dtype == "fp16")
    for x, y in batches * epochs:
        optimizer.zero_grad()
        with torch.autocast("cuda", DTYPES[dtype]):
            loss = nn.functional.cross_entropy(model(x), y)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    return w.weights(model), scaler.get_scale()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_mixed_precision_is_that_of_torch(dtype, backend):
    batches = small(overflows=dtype == "fp16")
    model = w.torch_mlp().cuda()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05, fused=True)
    precision = MixedPrecision(dtype, initial_scale=2.0**10)
    record = [Record(backend, strict=True)] if backend else []
    w.loop_of(model, batches, precision, *record, optimizer=optimizer).fit(epochs=4)
    weights, scale = by_hand(dtype, batches, 4)
    assert w.distance(w.weights(model), weights) < 2e-2
    if dtype == "fp16":
        assert float(precision.state_dict()["scale"]) == scale
        assert precision.num_skipped == 4


@pytest.mark.parametrize("backend", BACKENDS)
def test_all_of_them_together_recorded_as_eager(backend):
    ends = []
    for chosen in (None, backend):
        model = w.torch_mlp().cuda()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05, fused=True)
        made = [Accumulate(3), MixedPrecision("bf16"), ClipGradNorm(0.3), EMA(0.9)]
        record = [Record(chosen, strict=True)] if chosen else []
        loop = w.loop_of(model, small(overflows=False), *made, *record, optimizer=optimizer)
        loop.fit(epochs=4)
        ends.append([*w.weights(model), *made[-1].state_dict()["averages"].values()])
    assert w.distance(*ends) < 2e-2


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_a_step_waits_for_nothing(dtype):
    model = w.torch_mlp().cuda()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05, fused=True)
    made = [Accumulate(2), MixedPrecision(dtype), ClipGradNorm(0.3), EMA(0.9)]
    loop = w.loop_of(model, small(overflows=False), *made, optimizer=optimizer)
    loop.fit(epochs=1)  # the first update of an optimizer may wait

    @loop.on(Event.BATCH_BEGIN)
    def watch(state):
        torch.cuda.set_sync_debug_mode("error" if state.batch_index else "default")

    @loop.on(Event.PASS_END)
    def unwatch(state):
        torch.cuda.set_sync_debug_mode("default")

    try:
        loop.fit(epochs=1)
    finally:
        torch.cuda.set_sync_debug_mode("default")
