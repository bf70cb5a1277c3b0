"""Backend cudagraph: the step's kernels recorded by the driver and launched as one.

Kernels of a captured graph keep the addresses they were captured with. So inputs are copied into
tensors of the graph's own before each launch, state stays where it is, and outputs, which the next
launch overwrites, are cloned on the way out.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, final

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from fitkit.record.backends import Runner
from fitkit.record.passes.writes import written_state
from fitkit.record.step_graph import StepGraph

# Lazy initialization (cuBLAS handles, autotuning) happens in the first runs and may not be
# captured; torch's own wrapper warms up three times as well.
_WARM_UP_RUNS = 3

Work = Callable[[], Sequence[Tensor]]


class Device(Protocol):
    """What capturing needs of a device; a seam, so that the logic is tested without one."""

    def warm_up(self, work: Work) -> None:
        """Run the work on a side stream and wait for it."""
        ...

    def capture(self, work: Work) -> tuple[Callable[[], None], Sequence[Tensor]]:
        """Capture the work; return what launches it, and the outputs it writes."""
        ...

    def random_state_kept(self) -> AbstractContextManager[None]:
        """Return a context after which the device's generator is as it was before."""
        ...


@final
class Cuda:
    """The current CUDA device."""

    def warm_up(self, work: Work) -> None:
        """Run the work on a side stream, as capture requires, and wait for it."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP_RUNS):
                work()
        torch.cuda.current_stream().wait_stream(stream)

    def capture(self, work: Work) -> tuple[Callable[[], None], Sequence[Tensor]]:
        """Capture the work into a graph with a memory pool of its own."""
        graph: Any = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = work()
        return graph.replay, outputs

    @contextmanager
    def random_state_kept(self) -> Any:
        """Put the generator back: warm-up draws must not shift the draws of the run."""
        state = torch.cuda.get_rng_state()
        try:
            yield
        finally:
            torch.cuda.set_rng_state(state)


def cudagraph(
    run: Runner, step: StepGraph, inputs: Sequence[Tensor], *, device: Device | None = None
) -> Runner:
    """Capture what another backend runs. The state is as before afterwards.

    Args:
        run: The step as kernels, for example from inductor.
        step: The step, to know which tensors it changes.
        inputs: Example inputs.
        device: The device to capture on; default is the current CUDA device.

    Returns:
        A function of the step's inputs.
    """
    device = device or Cuda()
    static = [torch.empty_like(t).copy_(t) for t in inputs]

    def work() -> Sequence[Tensor]:
        return run(static)

    with torch.no_grad(), device.random_state_kept(), _state_kept(step):
        device.warm_up(work)
        launch, outputs = device.capture(work)

    written = written_state(step)

    def replay(inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        for own, given in zip(static, inputs, strict=True):
            own.copy_(given, non_blocking=True)
        launch()
        increment_version(written)  # as inductor does: nobody else counts these writes
        return [output.clone() for output in outputs]

    return replay


@contextmanager
def _state_kept(step: StepGraph) -> Any:
    """Undo what warm-up runs do to the state: they are real steps."""
    changed = written_state(step)
    before = [t.clone() for t in changed]
    try:
        yield
    finally:
        for tensor, value in zip(changed, before, strict=True):
            tensor.copy_(value)
