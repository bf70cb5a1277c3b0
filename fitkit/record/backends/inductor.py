"""Backend inductor: the step as compiled kernels. Equal to eager within rounding.

The graph goes to torch's compiler below dynamo and autograd: no guards, no wrappers, a call
runs its kernels. Random numbers come from eager's generators in eager's order.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from fitkit.record.backends import Runner
from fitkit.record.passes import functionalize, realize_scalars
from fitkit.record.passes.foreach import FOREACH
from fitkit.record.passes.long_sums import LONG_SUMS
from fitkit.record.passes.writes import written_state
from fitkit.record.step_graph import StepGraph

# Asserts recheck at every step what the program's key has settled. fallback_random keeps
# dropout masks equal to eager, which the audit compares with. The smallest piece of work for a
# thread is that of eager's kernels (at::internal::GRAIN_SIZE); the compiler's own, a sixty-fourth,
# shares out what eager leaves to one thread.
OPTIONS: dict[str, Any] = {
    "size_asserts": False,
    "scalar_asserts": False,
    "alignment_asserts": False,
    "fallback_random": True,
    "cpp.min_chunk_size": 32768,
}


def inductor(
    step: StepGraph, inputs: Sequence[Tensor], *, options: dict[str, Any] | None = None
) -> Runner:
    """Compile the graph; takes seconds.

    Args:
        step: The step; not changed.
        inputs: Example inputs with the shapes to compile for.
        options: Changes to the compiler's configuration (``torch._inductor.config``).

    Returns:
        A function of the step's inputs.
    """
    from torch._guards import TracingContext, tracing  # heavy: only where something is compiled
    from torch._inductor import config
    from torch._inductor.compile_fx import compile_fx_inner

    step, written = lowered(step, inputs), written_state(step)
    patched: Any = config.patch({**OPTIONS, **(options or {})})  # pyright: ignore
    with torch.no_grad(), patched:
        realize_scalars(step)
        fakes = [node.meta["val"] for node in step.placeholders]
        # The compiler's cache on disk, which makes a second process start fast, looks for
        # the fake mode of the graph here.
        with tracing(TracingContext(fakes[0].fake_mode)):
            wrapper = bool((options or {}).get("cpp_wrapper"))
            compiled: Any = compile_fx_inner(
                step.module, fakes, is_inference=True, cpp_wrapper=wrapper
            )
    # What compile_fx_inner returns looks for profilers and caches at each call.
    compiled = getattr(compiled, "current_callable", None) or compiled
    state = step.state

    def run(inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        with flushed_denormals():
            results = compiled([*inputs, *state])
        # Kernels write past torch, which counts the writes for others to see.
        increment_version(written)
        return results

    return run


def lowered(step: StepGraph, inputs: Sequence[Tensor]) -> StepGraph:
    """Return a copy of the step, without writes in place, in the operations a compiler is given."""
    from torch._inductor import config  # heavy: only where something is compiled
    from torch._inductor.decomposition import select_decomp_table

    step, patched = step.copy(), cast(Any, config).patch(OPTIONS)
    with patched:
        decompositions = {**select_decomp_table(), **LONG_SUMS, **FOREACH}
        functionalize(step, inputs, decompositions=decompositions)
    return step


_tiny = 5e-324


@contextmanager
def flushed_denormals() -> Generator[None]:
    """Let the processor take numbers below 1e-38 for zero, in this thread.

    The moments of weights that no longer get gradients decay to such numbers, on which a processor
    is slow.
    """
    if _tiny * 1.0 == 0.0:  # it does already
        yield
        return
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
