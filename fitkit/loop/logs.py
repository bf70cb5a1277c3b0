"""Logged scalars: added up on the device, read once per pass."""

from types import CodeType
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor

from fitkit.errors import ConfigError, brief

__all__ = ["LogBuffer", "Reduce", "check_scalar"]

Reduce = Literal["mean", "sum", "max", "min", "last"]

_RESERVED = frozenset({"epoch", "num_updates", "lr"})
_START: dict[str, float] = {"max": float("-inf"), "min": float("inf")}


class LogBuffer:
    """Accumulators of one kind of pass, one per logged name, on the device of its values.

    The tensors keep their addresses from pass to pass, so a recorded step that adds into them
    stays valid; `reset` empties them in place.
    """

    def __init__(self) -> None:
        self._totals: dict[str, Tensor] = {}
        self._weights: dict[str, Tensor] = {}
        self._reduce: dict[str, Reduce] = {}

    def add(self, name: str, value: Tensor, weight: float = 1.0, reduce: Reduce = "mean") -> None:
        """Add one value. Syncs: never.

        Args:
            name: The key under which the reduced value is logged.
            value: Shape (), any real dtype, any device.
            weight: What a mean counts this value with: the number of samples it stands for.
            reduce: How the values of a pass become one number.

        Raises:
            ConfigError: If `reduce` is unknown, or not the one `name` was first logged with.
        """
        if self._reduce.get(name) != reduce:
            self._create(name, value, reduce)
        total = self._totals[name]
        match reduce:
            case "mean":
                total.add_(value, alpha=weight)  # in the dtype of the total, as is every case below
            case "sum":
                total.add_(value)
            case "max":
                total.copy_(torch.maximum(total, value))
            case "min":
                total.copy_(torch.minimum(total, value))
            case "last":
                total.copy_(value)
        self._weights[name].add_(weight)

    def _create(self, name: str, value: Tensor, reduce: Reduce) -> None:
        _check_name(name)
        if reduce not in get_args(Reduce):
            raise ConfigError(
                f"reduce='{reduce}' for the logged value '{name}' is unknown\n"
                f"Use one of: {', '.join(get_args(Reduce))}."
            )
        if name in self._reduce:
            raise ConfigError(
                f"'{name}' is logged with reduce='{reduce}' and reduce='{self._reduce[name]}'\n"
                "Log each name in one way, or give the two values different names."
            )
        # float64: a mean over a million float32 losses keeps all its digits. MPS has no float64.
        dtype = torch.float32 if value.device.type == "mps" else torch.float64
        start = _START.get(reduce, 0.0)
        self._totals[name] = torch.full((), start, dtype=dtype, device=value.device)
        self._weights[name] = torch.zeros((), dtype=dtype, device=value.device)
        self._reduce[name] = reduce

    def read(self) -> dict[str, float]:
        """Return the reduced value of every name that was added to since the last reset."""
        if not self._totals:
            return {}
        home = next(iter(self._totals.values())).device
        parts = [*self._totals.values(), *self._weights.values()]
        stacked = torch.stack([part.to(home) for part in parts])
        numbers: list[float] = cast(Any, stacked).tolist()  # sync: once per pass
        count = len(self._totals)
        values: dict[str, float] = {}
        for name, total, weight in zip(self._totals, numbers[:count], numbers[count:], strict=True):
            if weight:
                values[name] = total / weight if self._reduce[name] == "mean" else total
        return values

    @property
    def names(self) -> frozenset[str]:
        """The names added to so far."""
        return frozenset(self._totals)

    def keep_only(self, names: frozenset[str]) -> None:
        """Forget every other name: what a trace has added holds no values."""
        for name in self.names - names:
            del self._totals[name], self._weights[name], self._reduce[name]

    def reset(self) -> None:
        """Empty every accumulator in place. Syncs: never."""
        for name, total in self._totals.items():
            total.fill_(_START.get(self._reduce[name], 0.0))
            self._weights[name].zero_()


def check_owner(name: str, owner: CodeType, caller: CodeType) -> None:
    """Check that a name is logged by one callback: two would be averaged into one number.

    Raises:
        ConfigError: If `owner` and `caller` are not of the same class.
    """
    first, second = (code.co_qualname.rpartition(".")[0] for code in (owner, caller))
    of_a_class = first and not first.endswith("<locals>")
    if owner.co_qualname == caller.co_qualname or (of_a_class and first == second):
        return
    raise ConfigError(
        f"'{name}' is logged by two callbacks, expected one\n"
        f"They are {owner.co_qualname} and {caller.co_qualname}.\n"
        "Give one of the two values another name."
    )


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not name:
        raise TypeError(
            f"state.log({brief(name)}, ...) got a {type(name).__name__}, expected a name\n"
            'Name the value, for example state.log("grad_norm", value).'
        )
    if name in _RESERVED or name.startswith("val_"):
        raise ConfigError(
            f"state.log({brief(name)}, ...) uses a reserved name\n"
            f"Names that start with 'val_' and {', '.join(sorted(_RESERVED))} are written by the "
            "loop and its callbacks; choose another one."
        )


def check_scalar(name: str, value: object) -> Tensor:
    """Return `value` detached if it is a 0-d tensor, otherwise raise what is wrong with it.

    Raises:
        TypeError: If `value` is no tensor, or its shape is not ().
    """
    if not isinstance(value, Tensor):
        raise TypeError(
            f"state.log({brief(name)}, ...) got a {type(value).__name__}, expected a tensor ()\n"
            "Put numbers that are already on the host into state.logs instead."
        )
    if value.dim() != 0:
        raise TypeError(
            f"state.log({brief(name)}, ...) got shape {tuple(value.shape)}, expected shape ()\n"
            "Reduce it first, for example with value.mean()."
        )
    return value.detach()
