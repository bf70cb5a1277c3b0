"""The process that contestants are forked from. It imports everything once; this module nothing."""

import multiprocessing
from multiprocessing import forkserver

CONTEXT = multiprocessing.get_context("forkserver")
LIBRARIES = ("keras", "lightning", "ignite", "accelerate", "skorch", "poutyne", "torchtnt")
COMPILER = ("torch._inductor.compile_fx", "sympy.combinatorics", "setuptools",
            "benchmarks.suite.compiler")  # fmt: skip
OURS = ("benchmarks.suite.worker", "benchmarks.suite.contestants.by_fitkit", "torchmetrics")


def start() -> None:
    """Begin with the imports, beside those of this process; what is not there is passed over."""
    CONTEXT.set_forkserver_preload([*LIBRARIES, *COMPILER, *OURS])
    forkserver.ensure_running()
