"""Fence: what a step may not do while it is traced, because a replay would not do it again.

A trace holds tensor operations only. A Python value that is read off a tensor, and everything the
step then does because of it, would be frozen as it was at the first step. Two guards watch: one
where torch functions are called from Python, one where operations reach the dispatcher, which
also sees reads made from C++ (a tensor given where an operation wants a number).
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, final

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from fitkit.record.constants import Constants, is_number
from fitkit.record.journal import Journal
from fitkit.record.refused import Refused, culprit, running_frames

_CONVERSIONS = ("bool", "int", "float", "complex", "index", "array", "format", "repr", "contains")
READS = frozenset({f"__{name}__" for name in _CONVERSIONS} | {"item", "tolist", "numpy", "cpu"})
_FOREACH_ADD = ("_foreach_add", "_foreach_add_")


def refuse(reason: str) -> Refused:
    """Return the refusal of what the running step just did, naming the line."""
    return Refused(reason, culprit(running_frames()))


@final
class ReadGuard(TorchFunctionMode):
    """Refuse reads of device values by Python, and make what Keras does traceable.

    Python numbers that become tensors are taken from a cache. ``_foreach_add(alpha=tensor)``,
    which reads the tensor, is rewritten as a product and a sum: equal within one rounding.

    Args:
        constants: The cache of number tensors.
        branch: The answer to every truth test of a tensor, or a function that gives the answer to
            the one at hand; None refuses it. For branches whose outcome the host knows: the step
            is traced once per outcome.
    """

    def __init__(
        self, constants: Constants, *, branch: bool | Callable[[], bool | None] | None = None
    ) -> None:
        super().__init__()
        self._constants = constants
        self._branch = branch
        self.num_branches = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Answer, rewrite, refuse or pass on one call of a torch function."""
        kwargs = dict(kwargs or {})
        if func is torch.as_tensor and args and is_number(args[0]):
            number = self._constants.get(*args, **kwargs)
            return number.clone() if self._constants.copied else number
        name = getattr(func, "__name__", "")
        if name == "__bool__":
            outcome = self._branch() if callable(self._branch) else self._branch
            if outcome is not None:
                self.num_branches += 1
                return outcome
        if name in READS:
            raise refuse(f"the step reads the value of a tensor on the host ({name})")
        if name in _FOREACH_ADD and isinstance(kwargs.get("alpha"), Tensor):
            alpha = kwargs.pop("alpha")
            scaled = torch._foreach_mul(list(args[1]), alpha)  # pyright: ignore
            return func(args[0], scaled, **kwargs)
        return func(*args, **kwargs)


@final
class OpGuard(TorchDispatchMode):
    """Refuse operations whose result a replay could not repeat, as they reach the dispatcher.

    Refused: operations that hand a device value to the host, results whose shape depends on
    values, draws from a generator of the user's own (its state is Python's), and copies from a
    device to the host.

    Args:
        journal: Told of each write, so that it can be undone.
    """

    def __init__(self, journal: Journal) -> None:
        super().__init__()  # pyright: ignore[reportUnknownMemberType]
        self._journal = journal

    def __torch_dispatch__(
        self,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Check one operation and pass it on."""
        kwargs = kwargs or {}
        if func._schema.is_mutable:
            self._journal.note(args)
        if torch.Tag.data_dependent_output in func.tags:
            raise refuse(f"the step reads the value of a tensor on the host ({func})")
        if any(isinstance(value, torch.Generator) for value in (*args, *kwargs.values())):
            raise refuse(f"the step draws from a torch.Generator of its own ({func})")
        result = func(*args, **kwargs)
        if _has_unknown_shape(result):
            raise refuse(f"the shape of a result depends on the values of a tensor ({func})")
        if _leaves_device(args, result):
            raise refuse(f"the step copies a tensor from the device to the host ({func})")
        return result


def _leaves_device(args: tuple[Any, ...], result: Any) -> bool:
    if not isinstance(result, Tensor) or result.device.type != "cpu":
        return False
    return any(isinstance(a, Tensor) and a.device.type != "cpu" for a in pytree.tree_leaves(args))


def _has_unknown_shape(result: Any) -> bool:
    """Tell whether a result has a size that is only known when the operation runs."""
    leaves = [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor)]
    return any(type(size) is not int for leaf in leaves for size in leaf.shape)
