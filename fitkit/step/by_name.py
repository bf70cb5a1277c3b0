"""Keras objects by their names."""

import difflib
from typing import Any

from fitkit.errors import ConfigError, brief

__all__ = ["by_name"]


def by_name(kind: str, module: Any, name: str) -> Any:
    """Return what `module.get` finds, for example `keras.losses` and "mse".

    Raises:
        ConfigError: If Keras knows no such name; says the nearest one.
    """
    try:
        return module.get(name)
    except ValueError:
        tools = {"get", "serialize", "deserialize"}
        known = [each for each in dir(module) if each[0] != "_" and each not in tools]
        lower = {each.lower(): each for each in known}
        close = lower[difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.0)[0]]
        raise ConfigError(
            f"Keras knows no {kind} named {brief(name)}; the nearest name is '{close}'\n"
            f"Use a name from {module.__name__}, or pass the {kind} itself."
        ) from None
