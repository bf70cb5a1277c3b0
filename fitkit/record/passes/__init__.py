"""Graph passes: small functions that edit a `StepGraph` in place, one per file.

`simplify` is exact and serves every backend. `functionalize` and `realize_scalars` serve compilers.
"""

from fitkit.record.passes.dead import drop_unread
from fitkit.record.passes.detach import drop_detach
from fitkit.record.passes.fold import fold_constants
from fitkit.record.passes.functional import functionalize
from fitkit.record.passes.scalars import realize_scalars
from fitkit.record.step_graph import StepGraph

__all__ = [
    "drop_detach",
    "drop_unread",
    "fold_constants",
    "functionalize",
    "realize_scalars",
    "simplify",
]


def simplify(step: StepGraph) -> None:
    """Remove what a replay need not compute again. Bit-exact."""
    drop_detach(step)
    fold_constants(step)
    drop_unread(step)
