"""What the code of a function names: global variables, modules, attributes."""

import sys
from collections.abc import Iterable
from types import CodeType, FunctionType
from typing import Any

from fitkit.record.holder import GONE

__all__ = ["named", "names_in", "outside_of"]


def names_in(code: CodeType) -> set[str]:
    """Return the global names and attributes that a function mentions, inner functions too."""
    inner = [const for const in code.co_consts if isinstance(const, CodeType)]
    return set(code.co_names).union(*map(names_in, inner))


def named(held: dict[str, Any], names: Iterable[str]) -> list[Any]:
    """Return the values of these names."""
    return [held.get(name, GONE) for name in names]


def outside_of(function: FunctionType, names: Iterable[str]) -> list[Any]:
    """Return code and defaults of a function, and the global variables and modules it names."""
    outer = function.__globals__
    found = [outer.get(name, sys.modules.get(name, GONE)) for name in names]
    return [function.__code__, function.__defaults__, function.__kwdefaults__, *found]
