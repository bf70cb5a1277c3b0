"""What Python reads of tensors: on a device, each such read waits for it."""

import traceback
from collections import Counter
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import Any, final
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["Reads", "counted_reads"]

_METHODS = (
    *("item", "tolist", "numpy", "cpu", "nonzero", "is_nonzero"),
    *("__float__", "__int__", "__bool__", "__index__", "__array__", "__complex__"),
)
_BETWEEN = (__file__, "torch/_dynamo/eval_frame.py", "torch/_compile.py")
_WAITING = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


@final
class Reads:
    """Counts reads while it is armed.

    Attributes:
        armed: Whether reads are counted.
        by: Their number, by hook, the function that asks, and how it asks.
        who: Whose hook runs now; "" if that does not matter.
    """

    def __init__(self) -> None:
        self.armed = False
        self.who = ""
        self.by: Counter[str] = Counter()

    def note(self, how: str) -> None:
        """Count a read of whoever called the caller."""
        if self.armed:
            self.by[f"{self.who}: {_asking()} {how}".removeprefix(": ")] += 1

    @contextmanager
    def armed_for(self, who: str) -> Generator[None]:
        """Count what is read in the body."""
        self.armed, self.who = True, who
        try:
            yield
        finally:
            self.armed = False


def _asking() -> str:
    """The name of the function that reads; some releases of torch put a wrapper before it."""
    stack = traceback.walk_stack(None)
    return next(f.f_code.co_name for f, _ in stack if not f.f_code.co_filename.endswith(_BETWEEN))


@contextmanager
def counted_reads() -> Generator[Reads]:
    """Count the methods by which Python reads a tensor, and operators that depend on its data.

    It counts on a CPU as well, where nothing waits.
    """
    reads = Reads()
    changed: dict[str, Any] = {name: _counting(reads, name) for name in _METHODS}
    with patch.multiple(Tensor, **changed), _Operators(reads):
        yield reads


def _counting(reads: Reads, name: str) -> Callable[..., Any]:
    original = getattr(Tensor, name)

    def read(tensor: Tensor, *arguments: Any, **keywords: Any) -> Any:
        reads.note(name)
        armed, reads.armed = reads.armed, False  # float() of a tensor asks item(): one read
        try:
            return original(tensor, *arguments, **keywords)
        finally:
            reads.armed = armed

    return read


class _Operators(TorchDispatchMode):
    """Counts operators that wait for the data."""

    def __init__(self, reads: Reads) -> None:
        super().__init__()  # pyright: ignore[reportUnknownMemberType]  # torch leaves it open
        self._reads = reads

    def __torch_dispatch__(
        self, op: Any, types: Iterable[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        if _WAITING & set(op.tags):
            self._reads.note(str(op))
        return op(*args, **(kwargs or {}))
