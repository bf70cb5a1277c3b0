"""Logged scalars: added up on the device, read once per pass."""

import math
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor

from fitkit.errors import ConfigError, brief
from fitkit.loop.events import Phase
from fitkit.loop.origin import owner_of, running

__all__ = ["LogBuffer", "Owners", "PhaseLogs", "Reduce", "check_owner", "check_scalar"]

Reduce = Literal["mean", "sum", "max", "min", "last"]
Owners = dict[str, tuple[object, CodeType]]  # by logged name: the callback, and the code that calls

_RESERVED = frozenset({"epoch", "num_updates", "lr"})
_START: dict[str, float] = {"max": float("-inf"), "min": float("inf")}


class LogBuffer:
    """Accumulators of one kind of pass, one per logged name, on the device of its values.

    The tensors keep their addresses from pass to pass, so a recorded step that adds into them
    stays valid; `reset` empties them in place.

    Attributes:
        unread: Whether anything may have been added since `State.deliver_logs`.
    """

    def __init__(self) -> None:
        self._totals: dict[str, Tensor] = {}
        self._weights: dict[str, Tensor] = {}
        self._reduce: dict[str, Reduce] = {}
        self.unread = True

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
        self.unread = True
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

    def mean(self, name: str) -> float | None:
        """Return what `read` has for one name, if that is a finite mean; None otherwise."""
        if self._reduce.get(name) != "mean":
            return None
        total = self._totals[name].item()  # sync: once per call
        weight = self._weights[name].item()  # sync: none is left to wait for
        return total / weight if weight and math.isfinite(total) else None

    @property
    def names(self) -> frozenset[str]:
        """The names added to so far."""
        return frozenset(self._totals)

    def keep_only(self, names: frozenset[str]) -> None:
        """Forget every other name: what a trace has added holds no values."""
        for name in self.names - names:
            del self._totals[name], self._weights[name], self._reduce[name]

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed pass goes on from, by name: total, weight, way to reduce."""
        return {
            name: [total, self._weights[name], self._reduce[name]]
            for name, total in self._totals.items()
        }

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Restore them in place; what is new is made on `device`."""
        self.reset()
        for name, (total, weight, reduce) in state.items():
            if self._reduce.get(name) != reduce:
                self._create(name, total.to(device), reduce)
            self._totals[name].copy_(total)
            self._weights[name].copy_(weight)

    def reset(self) -> None:
        """Empty every accumulator in place. Syncs: never."""
        self.unread = True  # a replay adds without telling
        for name, total in self._totals.items():
            total.fill_(_START.get(self._reduce[name], 0.0))
            self._weights[name].zero_()


class PhaseLogs:
    """The accumulators of each kind of pass."""

    def __init__(self) -> None:
        self._buffers = {phase: LogBuffer() for phase in Phase}
        self._open: set[Phase] = set()

    def of(self, phase: Phase) -> LogBuffer:
        """Return the accumulators of the innermost pass of a phase."""
        return self._buffers[phase]

    def begin(self, phase: Phase, exits: ExitStack) -> None:
        """Empty the accumulators; a pass within a pass of the same phase gets its own."""
        outer = self._buffers[phase]
        if phase in self._open:
            self._buffers[phase] = LogBuffer()
            exits.callback(self._buffers.__setitem__, phase, outer)
        else:
            outer.reset()
            self._open.add(phase)
            exits.callback(self._open.discard, phase)


def check_owner(owners: Owners, name: str, caller: FrameType) -> None:
    """Check that a name is logged by one callback: two would be averaged into one number.

    Args:
        owners: Who logged which name so far in this pass; a new name is added.
        name: The name.
        caller: Where it is logged.

    Raises:
        ConfigError: If another callback has logged it.
    """
    origin = running(caller)
    found = (caller.f_code if origin is None else owner_of(origin[0]), caller.f_code)
    known = owners.setdefault(name, found)
    if known[0] is not found[0]:
        raise ConfigError(
            f"'{name}' is logged by two callbacks, expected one\n"
            f"They are {_where(known[1])} and {_where(found[1])}.\n"
            "Give one of the two values another name."
        )


def _where(code: CodeType) -> str:
    return f"{code.co_qualname} ({Path(code.co_filename).name}:{code.co_firstlineno})"


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
