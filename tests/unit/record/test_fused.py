"""Torch's fused optimizer kernels, spelled out for the compiler, are the same arithmetic."""

import pytest
import torch

from fitkit.record.passes.fused import spelled_out
from tests.unit.record import steps

LR = torch.tensor(0.05, dtype=torch.float64)
OPTIMIZERS = {
    "adam": lambda p: torch.optim.Adam(p, lr=LR.clone(), fused=True),
    "adam amsgrad decay": lambda p: torch.optim.Adam(
        p, lr=LR.clone(), fused=True, amsgrad=True, weight_decay=0.1, maximize=True
    ),
    "adamw": lambda p: torch.optim.AdamW(p, lr=LR.clone(), fused=True, weight_decay=0.1),
    "sgd nesterov": lambda p: torch.optim.SGD(
        p, lr=LR.clone(), fused=True, momentum=0.9, nesterov=True, weight_decay=0.1
    ),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, fused=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.05, fused=True, lr_decay=0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_spelled_out_kernels_equal_the_fused_ones(name):
    step = steps.torch_step(OPTIMIZERS[name])
    program = steps.record(step)
    run = spelled_out(program.step.module)
    data, start = steps.batches(6), step.snapshot()
    for batch in data:
        step.run(batch)
    eager = step.snapshot()
    step.restore(start)
    with torch.no_grad():
        for batch in data:
            run(*program.step.tensors(batch))
    assert steps.distance(eager, step.snapshot()) < 1e-6
    fused = [n for n in program.step.module.graph.nodes if "_fused" in str(n.target)]
    assert len(fused) == 1
