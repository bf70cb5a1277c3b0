"""The floor: the products and convolutions of one step and its update, called one after the other.

One eager step is watched, and the operations that do its arithmetic are kept with their arguments.
What every loop has to compute stays; autograd, element-wise operations and all Python between is
gone. Frameworks are measured by how much they add to it.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from benchmarks.suite.probes import flops_per_step, matmul_flops_per_s, seconds
from benchmarks.suite.task import LEARNING_RATE, Task

LOOKUPS = ("aten.embedding", "aten._embedding_bag")


class Kept(TorchDispatchMode):
    """Keeps the calls of arithmetic."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run the operation; keep it if it is arithmetic."""
        kwargs = kwargs or {}
        if func._overloadpacket in flop_registry or str(func).startswith(LOOKUPS):
            self.calls.append((func, detached(args), detached(kwargs)))
        return func(*args, **kwargs)


def train(task: Task) -> None:
    task.told["flops_per_step"] = flops_per_step(task)
    task.told["matmul_flops_per_s"] = matmul_flops_per_s(task.device)
    task.told["loader_us"] = loader_us(task)
    run = bare_step(task)
    for _ in range(task.epochs):
        for _ in range(task.steps):
            run()
        task.tick()


def loader_us(task: Task) -> float:
    """What the loader that most contestants have takes per batch, when nobody trains."""
    list(task.loader())
    return 1e6 * seconds(lambda: list(task.loader()), task.device) / task.steps


def bare_step(task: Task) -> Callable[[], None]:
    """The kernels of one step on the first batch, on CUDA as one graph."""
    model = task.module
    inputs, targets = task.x[: task.batch].to(task.device), task.y[: task.batch].to(task.device)
    with Kept() as kept:
        task.torch_loss()(model(inputs), targets).backward()
    update = fused_update([p.detach() for p in model.parameters() if p.grad is not None])

    @torch.no_grad()
    def run() -> None:
        for func, args, kwargs in kept.calls:
            func(*args, **kwargs)
        update()

    return run if task.device == "cpu" else captured(run)


def fused_update(weights: list[torch.Tensor]) -> Callable[[], None]:
    """One pass of torch's fused Adam, with gradients of zero."""
    zeros = [[torch.zeros_like(w) for w in weights] for _ in range(3)]
    counts = [torch.ones((), device=w.device) for w in weights]
    numbers = {"lr": LEARNING_RATE, "beta1": 0.9, "beta2": 0.999, "weight_decay": 0.0, "eps": 1e-8}
    options = {**numbers, "amsgrad": False, "maximize": False}
    return lambda: torch._fused_adam_(weights, *zeros, [], counts, **options)


def captured(run: Callable[[], None]) -> Callable[[], None]:
    """The same as a CUDA graph: no launch costs either."""
    run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def detached(value: Any) -> Any:
    return torch.utils._pytree.tree_map_only(torch.Tensor, torch.Tensor.detach, value)
