"""Record: trace the step once through all its callbacks, then replay it without Python.

The engine, in the order data flows through it:

- `trace`: one run of the step on fake tensors gives a `StepGraph`, or a `Refused` verdict. The
  guards in `guard` refuse what a replay could not repeat.
- `passes`: exact simplifications, and the rewriting that compilers want.
- `backends`: interpret (bit-exact), inductor (compiled), cudagraph (captured).
- `program`: a `StepGraph` with a backend, callable like the step.
"""

from fitkit.record.constants import Constants
from fitkit.record.grads import GradBuffers, Gradients
from fitkit.record.passes import simplify
from fitkit.record.program import BACKENDS, Program
from fitkit.record.refused import Refused
from fitkit.record.step_graph import StepGraph
from fitkit.record.trace import trace

__all__ = [
    "BACKENDS",
    "Constants",
    "GradBuffers",
    "Gradients",
    "Program",
    "Refused",
    "StepGraph",
    "simplify",
    "trace",
]
