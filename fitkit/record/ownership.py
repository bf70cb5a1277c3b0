"""Whose an object is, and so which of its attributes count: the user's, fitkit's, a library's."""

import sys
from argparse import Namespace
from functools import cache
from types import FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import Any, cast
from weakref import ProxyType

from torch.optim import Optimizer

from fitkit.loop.events import REGION, Event, Phase, hook_name
from fitkit.record.holder import SCALARS
from fitkit.record.names import names_in

__all__ = [
    "HOST_SIDE",
    "LIBRARIES",
    "UNWATCHED",
    "counted_names",
    "hooks_of",
    "is_own",
    "is_watched",
    "leads_on",
    "package_of",
    "slots_of",
]

LIBRARIES = frozenset({"torch", "keras", "numpy", "torchmetrics"}) | sys.stdlib_module_names
UNWATCHED = (
    *("fitkit.loop.", "fitkit.record.", "fitkit.data."),
    *("threading.", "logging."),
    *("keras.src.backend.Variable", "keras.src.backend.common", "keras.src.backend.torch.core"),
    "torch.nn.modules.container.Parameter",
)
# Methods of a callback that never run in the step region.
HOST_SIDE = {hook_name(event) for event in Event if event not in REGION[Phase.TRAIN]} | {
    *("__init__", "attach", "detach", "state_dict", "load_state_dict", "step_key")
}
# Private, but it is what `optimizer.learning_rate = schedule_or_function` sets.
_KERAS_RATE = "_learning_rate"
# Private, but it is what `layer.trainable = False` sets; a layer may have no weights that tell.
_KERAS_TRAINABLE = "_trainable"


def is_watched(thing: Any) -> bool:
    """Return whether an object can hold anything the step depends on besides tensors."""
    kind = cast("type[Any]", type(thing))
    return not f"{kind.__module__}.{kind.__name__}".startswith(UNWATCHED)


def is_own(value: object) -> bool:
    """Return whether a global variable may be the user's: no module, no library's function."""
    if isinstance(value, ModuleType):
        return False
    return not isinstance(value, FunctionType | type) or package_of(value) not in LIBRARIES


def counted_names(thing: Any, package: str) -> list[str] | None:
    """Return the attributes of an object that count; None is all."""
    attributes = cast("dict[str, Any]", vars(thing))
    if isinstance(thing, (SimpleNamespace, Namespace)):
        return None  # a library's class, but what is inside is the user's
    if package == "fitkit":
        plain = {n for n, v in attributes.items() if not isinstance(v, dict | list | tuple)}
        return [name for name in attributes if name in plain and name[0] != "_"]
    if package in LIBRARIES:
        public = [n for n, v in attributes.items() if _is_public(n, v)]
        return [*public, "param_groups", "state"] if isinstance(thing, Optimizer) else public
    library = frozenset[str]().union(*map(_names_of_library, type(thing).__mro__))
    return [name for name in attributes if name not in library] if library else None


def _is_public(name: str, value: object) -> bool:
    return name in (_KERAS_RATE, _KERAS_TRAINABLE) or (
        name[0] != "_" and (isinstance(value, (*SCALARS, tuple)) or callable(value))
    )


def leads_on(name: str, value: object, package: str, names: list[str] | None) -> bool:
    """Return whether the walk goes on from an attribute."""
    if type(value) is ProxyType:  # a dead one could not be asked anything
        return True
    if package == "fitkit" or name == _KERAS_RATE or isinstance(value, FunctionType | MethodType):
        return True
    if names is None or package not in LIBRARIES:
        return names is None or name in names
    # What libraries keep in private and in containers is bookkeeping and variables.
    return name[0] != "_" and not isinstance(value, dict | list)


@cache
def _names_of_library(kind: type[Any]) -> frozenset[str]:
    """Return the private names that a library's class uses: its bookkeeping in a subclass."""
    if package_of(kind) not in LIBRARIES or kind is object:
        return frozenset()
    codes = [f.__code__ for f in vars(kind).values() if isinstance(f, FunctionType)]
    names = {name for code in codes for name in names_in(code)}
    return frozenset(name for name in names if name[0] == "_")


def package_of(thing: Any) -> str:
    """Return the name of the package that a class or function comes from."""
    return str(thing.__module__).partition(".")[0]


def hooks_of(parameter: Any) -> list[Any]:
    """Return the hooks that wait for the gradient of a parameter."""
    hooks, later = parameter._backward_hooks, parameter._post_accumulate_grad_hooks
    return [*(hooks or {}).values(), *(later or {}).values()]


def slots_of(kind: type[Any]) -> list[str]:
    """Return the slots of a class of the user's, inherited ones too."""
    own = [base for base in kind.__mro__ if package_of(base) not in LIBRARIES | {"fitkit"}]
    slots: list[Any] = [vars(base).get("__slots__", ()) for base in own]
    names = [name for each in slots for name in ([each] if isinstance(each, str) else each)]
    return [name for name in names if not name.startswith("__")]
