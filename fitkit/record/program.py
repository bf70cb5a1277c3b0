"""A recorded step, ready to be replayed by a backend."""

import time
from collections.abc import Callable, Sequence
from typing import Any, final

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from fitkit.record.backends import Runner
from fitkit.record.backends.cudagraph import cudagraph
from fitkit.record.backends.inductor import inductor
from fitkit.record.backends.interpret import interpret
from fitkit.record.backends.shaken import shaken
from fitkit.record.grads import Gradients
from fitkit.record.passes.purity import draws_random
from fitkit.record.step_graph import StepGraph

BACKENDS = ("interpret", "inductor", "cudagraph")


@final
class Program:
    """A step that runs without its Python code.

    Args:
        step: The traced and simplified step.
        gradients: The gradients it was traced with.

    Attributes:
        step: The graph and the live tensors it runs on.
        backend: What runs it: "interpret" until `compile` chose another.
        num_nodes: Nodes of the graph.
        trace_s: Seconds the trace took.
        compile_s: Seconds spent in `compile`.
        num_replays: Steps run so far.
        num_replays_of_backend: Steps run so far by the present backend.
    """

    def __init__(self, step: StepGraph, *, gradients: Gradients | None = None) -> None:
        self.step = step
        self.backend = "interpret"
        self.num_nodes = step.num_nodes
        self.trace_s = step.trace_s
        self.compile_s = 0.0
        self.num_replays = 0
        self.num_replays_of_backend = 0
        self._gradients = gradients or Gradients(())
        self._run = interpret(step)
        self._nest = _nester(step.spec)
        self._shaken: Program | None = None

    def compile(
        self, backend: str, inputs: Sequence[Tensor], *, options: dict[str, Any] | None = None
    ) -> None:
        """Have another backend run the step from now on. Changes no state.

        Args:
            backend: "interpret", "inductor", "cudagraph" (captures what inductor compiled), or
                "shaken" (with a rounding error in every result).
            inputs: Example inputs with the shapes of the step.
            options: Changes to inductor's configuration.
        """
        begin = time.perf_counter()
        self._run = _compile(backend, self.step, inputs, options)
        self.backend = backend
        self.num_replays_of_backend = 0
        self.compile_s += time.perf_counter() - begin

    def shaken(self, inputs: Sequence[Tensor]) -> "Program":
        """Return the same step with a rounding error in every result, another at each run."""
        if self._shaken is None:
            self._shaken = Program(self.step, gradients=self._gradients)
            self._shaken.compile("shaken", inputs)
        return self._shaken

    @property
    def gradients(self) -> Gradients:
        """The gradients it was traced with."""
        return self._gradients

    @property
    def repeatable(self) -> bool:
        """Whether eager code draws the same random numbers from the same generator state."""
        return self.backend != "cudagraph" or not draws_random(self.step)

    def __call__(self, inputs: Sequence[Tensor]) -> Any:
        """Run one step on new inputs, shaped like the ones traced.

        Returns:
            What the traced step returned, as tensors that no later run overwrites.
        """
        self._gradients.enter()
        with torch.no_grad():
            flat = self._run(inputs)
        self._gradients.leave()
        self.num_replays += 1
        self.num_replays_of_backend += 1
        return self._nest(flat)


def _compile(
    backend: str, step: StepGraph, inputs: Sequence[Tensor], options: dict[str, Any] | None
) -> Runner:
    if backend == "interpret":
        return interpret(step)
    if backend == "shaken":
        return shaken(step, inputs)
    if backend == "inductor":
        return inductor(step, inputs, options=options)
    return cudagraph(inductor(step, inputs, options=options), step, inputs)


def _nester(spec: pytree.TreeSpec) -> Callable[[Sequence[Tensor]], Any]:
    """Return what nests flat outputs again; the plain dict of a step's results goes fast."""
    if spec.type is dict and all(child.is_leaf() for child in spec.children()):
        keys = tuple(spec.context)
        return lambda flat: dict(zip(keys, flat, strict=True))
    return lambda flat: pytree.tree_unflatten(flat, spec)
