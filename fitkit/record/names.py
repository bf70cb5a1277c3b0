"""What the code of a function names: global variables, modules, attributes."""

import sys
from collections.abc import Iterable
from functools import partial
from types import CodeType, FunctionType
from typing import Any

from fitkit.record.holder import GONE

__all__ = ["code_of", "named", "names_in", "outside_of", "parts_of"]


def names_in(code: CodeType) -> set[str]:
    """Return the global names and attributes that a function mentions, inner functions too."""
    inner = [const for const in code.co_consts if isinstance(const, CodeType)]
    return set(code.co_names).union(*map(names_in, inner))


def named(held: dict[str, Any], names: Iterable[str]) -> list[Any]:
    """Return the values of these names."""
    return [held.get(name, GONE) for name in names]


def code_of(function: FunctionType) -> list[Any]:
    """Return code and defaults of a function, all of which may be assigned."""
    keywords = function.__kwdefaults__ or {}
    return [function.__code__, function.__defaults__, *keywords, *keywords.values()]


def outside_of(function: FunctionType, names: Iterable[str]) -> list[Any]:
    """Return the global variables and modules with these names that a function sees."""
    outer = function.__globals__
    return [outer.get(name, sys.modules.get(name, GONE)) for name in names]


def parts_of(value: "partial[Any]") -> list[Any]:
    """Return what a partial calls, and with what."""
    return [value.func, value.args, *value.keywords, *value.keywords.values()]
