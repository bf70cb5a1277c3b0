"""What the step region can reach from its callbacks and the model, found once per pass.

Of the user's own objects and functions everything counts. Of a library's objects the public
scalars and callables count; the rest is bookkeeping and variables, which a trace only puts back.
"""

import sys
from collections import deque
from collections.abc import Callable, Iterable
from functools import cache, partial
from itertools import islice
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any, cast, final

from torch import Tensor, nn
from torch.optim import Optimizer

from fitkit.interop import modules_of
from fitkit.loop.callback import Callback
from fitkit.loop.events import REGION, Event, Phase, hook_name
from fitkit.record.generators import GeneratorHolder
from fitkit.record.holders import (
    SCALARS,
    AttributeHolder,
    ClassHolder,
    Container,
    ContainerHolder,
    FunctionHolder,
    Holder,
)

__all__ = ["Reach"]

_LIBRARIES = frozenset({"torch", "keras", "numpy", "torchmetrics"}) | sys.stdlib_module_names
_UNWATCHED = (
    *("fitkit.loop", "fitkit.record", "fitkit.data", "threading", "logging"),
    *("keras.src.backend.Variable", "keras.src.backend.common", "keras.src.backend.torch.core"),
    "torch.nn.modules.container.Parameter",
)
# Private, but it is what `optimizer.learning_rate = schedule_or_function` sets.
_KERAS_RATE = "_learning_rate"
# Private dicts of modules whose items count: `module.weight = ...`, hooks that join or leave.
_MODULE_DICTS = ("_parameters", "_buffers", "_modules", "_forward_hooks", "_forward_pre_hooks")
# Methods of a callback that never run in the step region.
_HOST_SIDE = {hook_name(event) for event in Event if event not in REGION[Phase.TRAIN]} | {
    *("__init__", "attach", "detach", "state_dict", "load_state_dict", "step_key")
}
# Who mentions one of these may read attributes whose names do not appear in the code.
_DYNAMIC = {"getattr", "vars", "__dict__", "attrgetter", "__getattribute__", "asdict", "eval"}
_MAX_DEPTH = 4
_MAX_ITEMS = 64


@final
class Reach:
    """Finds holders by walking objects, containers and functions, to a depth of a few steps.

    Args:
        model: Where the walk begins, with all its modules.
        roots: Objects where the walk begins.
        functions: Functions where the walk begins.

    Attributes:
        holders: What a program depends on.
        inner: What a trace must put back besides.
        parameters: The parameters of all modules in reach.
    """

    def __init__(
        self, model: nn.Module, roots: Iterable[object], functions: Iterable[Callable[..., Any]]
    ) -> None:
        self.parameters: list[nn.Parameter] = []
        self._start = (model, list(roots), list(functions))
        self._mentioned: set[str] = set()
        self._walk()
        if self._has_open and not self._mentioned & _DYNAMIC:
            self._only = frozenset(self._mentioned)
            self._walk()

    _only: frozenset[str] | None = None  # attributes of the user's objects that a step may read

    def _walk(self) -> None:
        """Find everything, then what is out of reach of the step but must be put back."""
        self.holders: list[Holder] = []
        self.inner: list[Holder] = []
        self._unread: list[Holder] = []
        self._later: list[tuple[Any, int, str]] = []
        self._has_open = False
        self._library_objects: list[Any] = []
        self._ids: set[int] = set()
        self._kept: list[Any] = []  # their ids are in use: temporary objects must not give theirs
        model, roots, functions = self._start
        self._add_modules(model, depth=1)
        for root in roots:
            self._add_object(root, depth=0)
        for function in functions:
            self._add(function, depth=1)
        read, self.holders = self.holders, self._unread
        for value, depth, owner in self._later:
            self._add(value, depth, owner)
        self.holders = read

    @property
    def all_holders(self) -> list[Holder]:
        """What counts, and what a trace must put back besides."""
        return [*self.holders, *self._unread, *self.inner]

    def look_inside(self) -> None:
        """List anew what libraries' objects keep for themselves."""
        self.inner = []
        for thing in self._library_objects:
            owner = type(thing).__name__
            self.inner.append(AttributeHolder(thing, names=()))
            # What is appended to a list of torchmetrics is its state.
            counts = isinstance(thing, Optimizer) or _package(type(thing)) == "torchmetrics"
            attributes: dict[str, Any] = vars(thing)
            for value in list(attributes.values()):
                if isinstance(value, dict | list | deque | set):
                    self._look_into(cast(Container, value), owner, counts=counts)

    def _look_into(self, value: Container, owner: str, *, counts: bool) -> None:
        if id(value) in self._ids:
            return
        self.inner.append(ContainerHolder(value, owner, counts=counts))
        if counts and isinstance(value, dict):  # the slots of the optimizer, per parameter
            for slots in value.values():
                if isinstance(slots, dict):
                    self.inner.append(ContainerHolder(cast(Container, slots), owner))

    def _add(self, value: Any, depth: int, owner: str = "") -> None:
        """Walk on from any value."""
        if depth > _MAX_DEPTH or isinstance(value, (*SCALARS, Tensor, ModuleType)):
            return
        if isinstance(value, dict | list | deque | set):
            self._add_container(cast(Container, value), owner, depth)
        elif isinstance(value, tuple | frozenset):
            for item in islice(cast("tuple[Any, ...]", value), _MAX_ITEMS):
                self._add(item, depth, owner)
        elif isinstance(value, FunctionType):
            self._add_function(value, depth)
        elif isinstance(value, MethodType):
            self._add(value.__func__, depth)
            self._add(value.__self__, depth)
        elif isinstance(value, partial):
            parts = cast("partial[Any]", value)
            self._add((parts.func, parts.args, parts.keywords), depth, "partial")
        elif isinstance(value, type):
            self._add_class(cast("type[Any]", value), depth)
        elif isinstance(value, nn.Module):
            self._add_modules(value, depth)
        else:
            self._add_object(value, depth)

    def _is_new(self, value: Any) -> bool:
        if id(value) in self._ids:
            return False
        self._ids.add(id(value))
        self._kept.append(value)
        return True

    def _add_modules(self, module: nn.Module, depth: int) -> None:
        self.parameters += module.parameters()
        modules = modules_of(module)[::-1]  # inner ones first: depth counts from each of them
        for each in modules:
            self._add_object(each, depth)
        for each in modules:
            if _is_watched(each) and _package(type(each)) != "keras":
                for name in _MODULE_DICTS:
                    self._add(getattr(each, name, None), depth + 1, type(each).__name__)

    def _add_object(self, thing: Any, depth: int) -> None:
        if not _is_watched(thing) or not self._is_new(thing):
            return
        generator = GeneratorHolder.of(thing)
        if generator is not None:
            self.holders.append(generator)
        if not isinstance(getattr(thing, "__dict__", None), dict):
            return
        kind = cast("type[Any]", type(thing))
        package = _package(kind)
        names = _names(thing, package)
        holder = AttributeHolder(thing, names)
        if names is None or names:
            self.holders.append(holder)
        if names is not None:
            self._library_objects.append(thing)
        elif self._only is None:
            self._has_open = True
        else:
            holder.narrow(self._only)
        attributes = cast("dict[str, Any]", vars(thing))
        for name, value in list(attributes.items()):
            if package == "fitkit" and isinstance(value, dict | list):
                items = cast("dict[Any, Any] | list[Any]", value)
                value = tuple(items.values() if isinstance(items, dict) else items)
            if _leads_on(name, value, package, names):
                hidden = names is None and self._only is not None and name not in self._only
                found = (value, depth + 1, f"{kind.__name__}.{name}")
                self._later.append(found) if hidden else self._add(*found)
        if isinstance(thing, Optimizer):
            self._add(thing.param_groups, _MAX_DEPTH - 1, kind.__name__)
        for base in kind.__mro__:
            self._add_class(base, depth + 1)

    def _add_class(self, kind: type[Any], depth: int) -> None:
        package = _package(kind)
        if package in _LIBRARIES or kind.__module__.startswith(_UNWATCHED):
            return
        if not self._is_new(kind):
            return
        if package != "fitkit":
            self.holders.append(ClassHolder(kind))
        hidden = _HOST_SIDE if issubclass(kind, Callback) else ()
        for value in [value for name, value in vars(kind).items() if name not in hidden]:
            function = getattr(value, "__func__", getattr(value, "fget", value))
            self._add(function, max(depth, 1), kind.__name__)

    def _add_container(self, value: Container, owner: str, depth: int) -> None:
        if not self._is_new(value):
            return
        self.holders.append(ContainerHolder(value, owner))
        items = value.values() if isinstance(value, dict) else value
        for item in list(islice(items, _MAX_ITEMS)):
            self._add(item, depth + 1, owner)

    def _add_function(self, function: FunctionType, depth: int) -> None:
        package = _package(function)
        if package in _LIBRARIES or not self._is_new(function):
            return
        outer: dict[str, Any] = {}
        if package != "fitkit":
            self._mentioned |= _names_in(function.__code__)
            outer = function.__globals__
        used = [name for name in _names_in(function.__code__) if name in outer]
        holder = FunctionHolder(function, [n for n in used if _is_own(outer[n])])
        if holder.items():
            self.holders.append(holder)
        for name in used:
            if isinstance(outer[name], ModuleType):
                self._add_settings(outer[name], function)
        for value in (*holder.read(), *(function.__defaults__ or ())):
            self._add(value, depth + 1, function.__qualname__)

    def _add_settings(self, module: ModuleType, function: FunctionType) -> None:
        """Add the variables of another module of the user's that a function may use."""
        if module.__name__.partition(".")[0] in _LIBRARIES | {"fitkit"}:
            return
        names = [name for name in _names_in(function.__code__) if name in vars(module)]
        if names:
            self.holders.append(AttributeHolder(module, names))


def _is_watched(thing: Any) -> bool:
    kind = cast("type[Any]", type(thing))
    return not f"{kind.__module__}.{kind.__name__}".startswith(_UNWATCHED)


def _is_own(value: object) -> bool:
    """Return whether a global variable may be the user's: no module, no library's function."""
    if isinstance(value, ModuleType):
        return False
    return not isinstance(value, FunctionType | type) or _package(value) not in _LIBRARIES


def _names(thing: Any, package: str) -> list[str] | None:
    """Return the attributes of an object that count; None is all."""
    attributes = cast("dict[str, Any]", vars(thing))
    if package == "fitkit":
        plain = {n for n, v in attributes.items() if not isinstance(v, dict | list | tuple)}
        return [name for name in attributes if name in plain and name[0] != "_"]
    if package in _LIBRARIES:
        public = [n for n, v in attributes.items() if _is_public(n, v)]
        return [*public, "param_groups", "state"] if isinstance(thing, Optimizer) else public
    library = frozenset[str]().union(*map(_names_of_library, type(thing).__mro__))
    return [name for name in attributes if name not in library] if library else None


def _is_public(name: str, value: object) -> bool:
    return name == _KERAS_RATE or (
        name[0] != "_" and (isinstance(value, SCALARS) or callable(value))
    )


def _leads_on(name: str, value: object, package: str, names: list[str] | None) -> bool:
    """Return whether the walk goes on from an attribute."""
    if package == "fitkit" or name == _KERAS_RATE or isinstance(value, FunctionType | MethodType):
        return True
    if package not in _LIBRARIES:
        return names is None or name in names
    # What libraries keep in private and in containers is bookkeeping and variables.
    return name[0] != "_" and not isinstance(value, dict | list)


@cache
def _names_of_library(kind: type[Any]) -> frozenset[str]:
    """Return the private names that a library's class uses: its bookkeeping in a subclass."""
    if _package(kind) not in _LIBRARIES or kind is object:
        return frozenset()
    codes = [f.__code__ for f in vars(kind).values() if isinstance(f, FunctionType)]
    names = {name for code in codes for name in _names_in(code)}
    return frozenset(name for name in names if name[0] == "_")


def _names_in(code: CodeType) -> set[str]:
    """Return the global names and attributes that a function mentions, inner functions too."""
    inner = [const for const in code.co_consts if isinstance(const, CodeType)]
    return set(code.co_names).union(*map(_names_in, inner))


def _package(thing: Any) -> str:
    return str(thing.__module__).partition(".")[0]
