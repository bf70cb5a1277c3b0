"""Fence: the Python state a step depends on, or changes.

A trace holds what attributes were when it was made. So the attributes of everything the step
region can reach are part of a program's key (`layer.rate = 0.5` gives a new program), and a region
that changes one of them while it is traced is refused (a counter, a rebound tensor).
"""

from collections.abc import Callable, Iterable
from operator import is_
from types import FunctionType, MethodType
from typing import Any, cast, final

from torch import Tensor, nn

from fitkit.interop import modules_of
from fitkit.loop.callback import Callback
from fitkit.record.holders import (
    AttributeHolder,
    ContainerHolder,
    FunctionHolder,
    Holder,
    Values,
    fingerprint,
)
from fitkit.record.refused import Refused

__all__ = ["PythonState"]

_LIBRARIES = frozenset({"torch", "keras", "numpy", "torchmetrics", "builtins", "collections"})
_VARIABLES = (
    "keras.src.backend.Variable",
    "keras.src.backend.common",
    "keras.src.backend.torch.core",
    "torch.nn.modules.cont",
)
_MAX_DEPTH = 4
_MAX_CONTAINER = 64


@final
class PythonState:
    """The attributes of objects and functions, watched by identity and compared by value.

    Args:
        model: All its modules are watched.
        roots: Callbacks of the step region; what they hold is watched as well.
        functions: Functions called in the region; their closures and globals are watched.
        before: What was watched until now; equal attributes keep their version.

    Attributes:
        parameters: All parameters of the model, whose `requires_grad` belongs into a key.
        keyed: The callbacks with a `step_key` of their own.
    """

    def __init__(
        self,
        model: nn.Module,
        roots: Iterable[Callback],
        functions: Iterable[Callable[..., Any]],
        *,
        before: "PythonState | None" = None,
    ) -> None:
        roots = list(roots)
        self.parameters = list(model.parameters())
        self.keyed = [root for root in roots if type(root).step_key is not Callback.step_key]
        self._holders: list[Holder] = []
        self._ids: set[int] = set()
        for module in modules_of(model):
            self._add_object(module, depth=_MAX_DEPTH - 1)
            self._add_function(type(module).forward)
        for root in roots:
            self._add_object(root, depth=0)
        for function in functions:
            self._add_function(function)
        # A fingerprint holds ids; the values it was made of are kept, so that no id comes back.
        self._versions: dict[Values, tuple[int, list[Values]]] = before._versions if before else {}
        self._seen = [holder.read() for holder in self._holders]
        self._fingerprints: list[Values] = [fingerprint(values) for values in self._seen]
        self._version = self._number()

    def version(self) -> int:
        """Return a number that is the same whenever all watched attributes are."""
        changed = False
        for index, holder in enumerate(self._holders):
            now, before = holder.read(), self._seen[index]
            if len(now) != len(before) or not all(map(is_, now, before)):
                self._seen[index] = now
                self._fingerprints[index] = fingerprint(now)
                changed = True
        if changed:
            self._version = self._number()
        return self._version

    def _number(self) -> int:
        key = tuple(self._fingerprints)
        return self._versions.setdefault(key, (len(self._versions), list(self._seen)))[0]

    def snapshot(self) -> list[Values]:
        """Return everything watched as it is now."""
        return [holder.read() for holder in self._holders]

    def restore(self, snapshot: list[Values]) -> str | None:
        """Undo what changed since `snapshot`; return the name of the first attribute, if any."""
        first: str | None = None
        for holder, before in zip(self._holders, snapshot, strict=True):
            changed = holder.changed(before)
            if changed is not None:
                first = first or f"{holder.owner}.{changed}"
                holder.write(before)
        return first

    def _add_object(self, thing: Any, depth: int) -> None:
        if id(thing) in self._ids or depth > _MAX_DEPTH or not _is_watched(thing):
            return
        self._ids.add(id(thing))
        package = _package(type(thing))
        if package != "fitkit":  # fitkit's own callbacks keep nothing the region depends on
            self._holders.append(AttributeHolder(thing, package in _LIBRARIES))
        watched = package != "fitkit"
        attributes = cast(dict[str, Any], vars(thing))
        for name, value in list(attributes.items()):
            # What libraries keep in private and in containers is bookkeeping and variables.
            if package not in _LIBRARIES or not (name[0] == "_" or isinstance(value, dict | list)):
                self._add_value(value, type(thing).__name__, depth + 1, watched)

    def _add_value(self, value: Any, owner: str, depth: int, watched: bool) -> None:
        if isinstance(value, dict | list):
            self._add_container(cast("dict[Any, Any] | list[Any]", value), owner, depth, watched)
        elif isinstance(value, tuple):
            for item in cast("tuple[Any, ...]", value)[:_MAX_CONTAINER]:
                self._add_value(item, owner, depth, watched)
        elif isinstance(value, FunctionType | MethodType):
            self._add_function(value)
        elif not isinstance(value, nn.Module):
            self._add_object(value, depth)

    def _add_container(
        self, value: "dict[Any, Any] | list[Any]", owner: str, depth: int, watched: bool
    ) -> None:
        if id(value) in self._ids or depth > _MAX_DEPTH or len(value) > _MAX_CONTAINER:
            return
        self._ids.add(id(value))
        if watched:
            self._holders.append(ContainerHolder(value, owner))
        for item in list(value.values()) if isinstance(value, dict) else value:
            self._add_value(item, owner, depth + 1, watched)

    def _add_function(self, function: Callable[..., Any]) -> None:
        function = getattr(function, "__func__", function)
        if not isinstance(function, FunctionType) or id(function) in self._ids:
            return
        if _package(function) in _LIBRARIES | {"fitkit"}:
            return
        self._ids.add(id(function))
        self._holders.append(FunctionHolder(function))


def _is_watched(thing: Any) -> bool:
    if isinstance(thing, Tensor | type | FunctionType) or not hasattr(thing, "__dict__"):
        return False
    unwatched = ("fitkit.loop", "fitkit.record", "threading", "logging", *_VARIABLES)
    kind = cast(type[Any], type(thing))
    return not f"{kind.__module__}.{kind.__name__}".startswith(unwatched)


def _package(thing: Any) -> str:
    return str(thing.__module__).partition(".")[0]


def refuse_changes(state: PythonState, snapshot: list[Values]) -> None:
    """Raise Refused if the traced step changed Python state; everything is put back first.

    Raises:
        Refused: Naming the attribute.
    """
    changed = state.restore(snapshot)
    if changed is not None:
        raise Refused(f"the step changes Python state: {changed}")
