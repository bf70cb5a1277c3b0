"""What the step region can reach from its callbacks and the model.

Of the user's own objects and functions everything counts. Of a library's objects the public
scalars and callables count; the rest is bookkeeping and variables, which a trace only puts back.
"""

from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from operator import call
from types import FunctionType, MethodType, ModuleType
from typing import Any, cast, final

import numpy as np
from torch import Tensor, nn
from torch.optim import Optimizer

from fitkit.interop import is_keras, modules_of
from fitkit.loop.callback import Callback
from fitkit.record.containers import ArrayHolder, Container, ContainerHolder, IteratorHolder
from fitkit.record.generators import GeneratorHolder
from fitkit.record.holder import SCALARS, Holder
from fitkit.record.holders import AttributeHolder, ClassHolder, FunctionHolder, SlotsHolder
from fitkit.record.inner import inner_holders
from fitkit.record.names import code_of, named, names_in, outside_of, parts_of
from fitkit.record.ownership import (
    HOST_SIDE,
    LIBRARIES,
    UNWATCHED,
    counted_names,
    hooks_of,
    is_own,
    is_watched,
    leads_on,
    package_of,
    slots_of,
)
from fitkit.record.seen import MAX_ITEMS, Seen
from fitkit.record.unwrapped import WRAPPERS, unwrapped

__all__ = ["Reach"]

# Private dicts of modules whose items count: `module.weight = ...`, hooks that join or leave.
_HOOK_DICTS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_MODULE_DICTS = ("_parameters", "_buffers", "_modules", *_HOOK_DICTS)
# Who mentions one of these may read attributes whose names do not appear in the code.
_DYNAMIC = {"getattr", "vars", "__dict__", "attrgetter", "__getattribute__", "asdict", "eval"}
_LEAVES = frozenset({*SCALARS, Tensor, nn.Parameter, ModuleType})  # most of what is met
_MAX_DEPTH = 16
_MAX_BYTES = 1 << 16  # of an array, compared at every step


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
        self.model, self._start = model, (list(roots), list(functions))
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
        self._seen = Seen()
        self._ids: set[int] = set()
        self._kept: list[Any] = []  # their ids are in use: temporary objects must not give theirs
        roots, functions = self._start
        self._add_modules(self.model, depth=1)
        for root in roots:
            self._add_object(root, depth=0)
            if not is_watched(root):  # a listener: it may get another function
                self._seen.add_object(root, with_items=True)
        for function in functions:
            self._add(function, depth=1)
        read, self.holders = self.holders, self._unread
        for value, depth, owner in self._later:
            self._add(value, depth, owner)
        self.holders = read
        self._seen.close()

    @property
    def all_holders(self) -> list[Holder]:
        """What counts, and what a trace must put back besides."""
        return [*self.holders, *self._unread, *self.inner]

    def look_inside(self) -> None:
        """List anew what libraries' objects keep for themselves."""
        self.inner = inner_holders(self._library_objects, but=self._ids)

    def is_same(self, model: nn.Module) -> bool:
        """Return whether another walk from this model would find the same."""
        return model is self.model and self._seen.is_same()

    def _add(self, value: Any, depth: int, owner: str = "") -> None:
        """Walk on from any value."""
        if type(value) in _LEAVES or depth > _MAX_DEPTH:
            return
        wrapper, value = value, unwrapped(value)
        if value is not None and isinstance(wrapper, WRAPPERS):
            self._seen.add_dict(vars(wrapper))
        if isinstance(value, (*SCALARS, Tensor, ModuleType)):
            return
        if isinstance(value, dict | list | deque | set):
            self._add_container(cast(Container, value), owner, depth)
        elif isinstance(value, tuple | frozenset):
            for item in islice(cast("tuple[Any, ...]", value), MAX_ITEMS):
                self._add(item, depth, owner)
        elif isinstance(value, FunctionType):
            self._add_function(value, depth)
        elif isinstance(value, MethodType):
            self._add(value.__func__, depth)
            self._add(value.__self__, depth)
        elif isinstance(value, partial):
            parts = cast("partial[Any]", value)
            self._seen.add(parts_of, parts)
            self._add((parts.func, parts.args, parts.keywords), depth, "partial")
        elif isinstance(value, type):
            self._add_class(cast("type[Any]", value), depth)
        elif isinstance(value, nn.Module):
            self._add_modules(value, depth)
        elif isinstance(value, np.ndarray):
            array = cast("np.ndarray[Any, Any]", value)
            if array.nbytes <= _MAX_BYTES and self._is_new(array):
                self.holders.append(ArrayHolder(array, owner))
        elif hasattr(cast(Any, type(value)), "__next__") and package_of(type(value)) in LIBRARIES:
            if self._is_new(value):
                self.holders.append(IteratorHolder(type(value).__name__, owner))
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
        for parameter in module.parameters():
            self._add_parameter(parameter, depth)
        modules = modules_of(module)[::-1]  # inner ones first: depth counts from each of them
        for each in modules:
            self._add_object(each, depth)
            for held in (getattr(each, name) for name in ("_parameters", "_modules")):
                if isinstance(held, dict):  # a scripted module has something else there
                    self._seen.add_dict(cast(Any, held))
            if is_keras(each, "Layer"):
                self._seen.add_list(cast(Any, each)._layers)
        for each in modules:
            if is_watched(each):
                names = _HOOK_DICTS if package_of(type(each)) == "keras" else _MODULE_DICTS
                for name in names:
                    self._add(getattr(each, name, None), depth + 1, type(each).__name__)

    def _add_parameter(self, parameter: nn.Parameter, depth: int) -> None:
        self._seen.add(hooks_of, parameter)
        self._seen.add_dict(vars(parameter))
        for hook in hooks_of(parameter):
            self._add(hook, depth + 1, "the hook of a parameter")
        if vars(parameter) and self._is_new(parameter):  # say, a factor of its learning rate
            self.holders.append(AttributeHolder(parameter))

    def _add_object(self, thing: Any, depth: int) -> None:
        if not is_watched(thing) or not self._is_new(thing):
            return
        generator = GeneratorHolder.of(thing)
        if generator is not None:
            self.holders.append(generator)
        if not isinstance(getattr(thing, "__dict__", None), dict):
            self._add_slots(thing, depth)
            return
        kind = cast("type[Any]", type(thing))
        package = package_of(kind)
        self._seen.add_object(thing, with_items=package == "fitkit")
        names = counted_names(thing, package)
        holder = AttributeHolder(thing, names, which=package not in LIBRARIES | {"fitkit"})
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
            if leads_on(name, value, package, names):
                hidden = names is None and self._only is not None and name not in self._only
                found = (value, depth + 1, f"{kind.__name__}.{name}")
                self._later.append(found) if hidden else self._add(*found)
        if isinstance(thing, Optimizer):
            self._add(thing.param_groups, _MAX_DEPTH - 1, kind.__name__)
        for base in kind.__mro__:
            self._add_class(base, depth + 1)

    def _add_slots(self, thing: Any, depth: int) -> None:
        kind = cast("type[Any]", type(thing))
        if not (names := slots_of(kind)):
            return
        self.holders.append(holder := SlotsHolder(thing, names))
        self._seen.add_class_of(thing)
        self._seen.add(SlotsHolder.read, holder)
        for name, value in holder.items().items():
            self._add(value, depth + 1, f"{kind.__name__}.{name}")
        for base in kind.__mro__:
            self._add_class(base, depth + 1)

    def _add_class(self, kind: type[Any], depth: int) -> None:
        package = package_of(kind)
        if package in LIBRARIES or kind.__module__.startswith(UNWATCHED):
            return
        if not self._is_new(kind):
            return
        self._seen.add_class(kind)
        if package != "fitkit":
            self.holders.append(ClassHolder(kind))
        self._add_class(type(kind), depth)
        hidden = HOST_SIDE if issubclass(kind, Callback) else ()
        for value in [value for name, value in vars(kind).items() if name not in hidden]:
            function = getattr(value, "__func__", getattr(value, "fget", value))
            self._add(function, max(depth, 1), kind.__name__)

    def _add_container(self, value: Container, owner: str, depth: int) -> None:
        if not self._is_new(value):
            return
        self.holders.append(ContainerHolder(value, owner))
        self._seen.add_items(value)
        items = value.values() if isinstance(value, dict) else value
        for item in list(islice(items, MAX_ITEMS)):
            self._add(item, depth + 1, owner)

    def _add_function(self, function: FunctionType, depth: int) -> None:
        package = package_of(function)
        if package in LIBRARIES or not self._is_new(function):
            return
        names = sorted(names_in(function.__code__)) if package != "fitkit" else []
        outer = function.__globals__
        self._mentioned.update(names)
        holder = FunctionHolder(function, [n for n in names if n in outer and is_own(outer[n])])
        if holder.items():
            self.holders.append(holder)
            self._seen.add(FunctionHolder.read, holder)
        if package != "fitkit":
            self._add_container(vars(function), function.__qualname__, depth)
            self._seen.add(code_of, function)
            self._seen.add(call, partial(outside_of, function, names))
            self._add_modules_used(function, names, depth)
        defaults = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
        for value in (*holder.read(), *defaults):
            self._add(value, depth + 1, function.__qualname__)

    def _add_modules_used(self, function: FunctionType, names: list[str], depth: int) -> None:
        """Add what a function may use of other modules of the user's: variables, functions."""
        left = list(outside_of(function, names))
        seen: set[str] = set()
        while left:
            module = left.pop()
            name = module.__name__ if isinstance(module, ModuleType) else "fitkit"
            if name in seen or name.partition(".")[0] in LIBRARIES | {"fitkit"}:
                continue
            seen.add(name)
            held = vars(module)
            self._seen.add(call, partial(named, held, names))
            left += [held[name] for name in names if name in held]
            own = [name for name in names if name in held and is_own(held[name])]
            if own:
                self.holders.append(AttributeHolder(module, own))
            for name in own:
                self._add(held[name], depth + 1, module.__name__)
