"""The names and signatures of hooks, checked while a callback class is being defined."""

import difflib
import warnings
from inspect import iscoroutinefunction, isgeneratorfunction, signature
from typing import Any

from fitkit.errors import ConfigError, brief
from fitkit.loop.events import Event, hook_name

__all__ = ["check_hooks"]

_HOOKS = {hook_name(event) for event in Event}


def check_hooks(cls: type) -> None:
    """Check the methods a callback class defines; warn of hooks that lack the prefix.

    Raises:
        ConfigError: If a method named `on_...` is no hook.
        TypeError: If a hook cannot be called with (self, state), or calling it would not run it.
    """
    for name, member in vars(cls).items():
        if name.startswith("on_") and (callable(member) or name in _HOOKS):
            _check_hook(cls.__name__, name, member)
        elif "_" in name and f"on_{name}" in _HOOKS:
            warnings.warn(
                f"{cls.__name__}.{name} is never called by the loop\n"
                f"If it is meant as a hook, name it on_{name}.",
                stacklevel=3,  # the class statement
            )


def _check_hook(owner: str, name: str, member: Any) -> None:
    if name not in _HOOKS:
        # Other libraries say start where the events say begin, and train_batch for batch.
        told = name.replace("start", "begin").replace("train_batch", "batch")
        close = difflib.get_close_matches(told, _HOOKS, n=1, cutoff=0.0)[0]
        raise ConfigError(
            f"{owner}.{name} is no hook of fitkit, so it would never be called\n"
            f"The nearest one is {close}; rename it, or drop the prefix 'on_'."
        )
    if not callable(member) or iscoroutinefunction(member) or isgeneratorfunction(member):
        kind = "a coroutine" if iscoroutinefunction(member) else "a generator"
        raise TypeError(
            f"{owner}.{name} is {kind if callable(member) else brief(member)}, expected a method "
            "that runs when it is called\n"
            f"A hook is defined as: def {name}(self, state)."
        )
    found = signature(member)
    try:
        found.bind("self", "state")
    except TypeError:
        raise TypeError(
            f"{owner}.{name} has the wrong signature, expected (self, state)\n"
            f"Found: {name}{found}.\n"
            f"A hook is defined as: def {name}(self, state)."
        ) from None
