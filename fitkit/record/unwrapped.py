"""What stands behind a reference or a wrapper of Python's library."""

import gc
from collections import ChainMap, UserDict, UserList
from types import MappingProxyType
from typing import Any, cast
from weakref import ProxyType, ref

__all__ = ["WRAPPERS", "unwrapped"]

WRAPPERS = (UserDict, UserList, ChainMap)


def unwrapped(value: Any) -> Any:
    """Return what a weak reference refers to, what a wrapper holds, else the value itself.

    Returns:
        The object or container; None if a weak reference has lost it.
    """
    value = _referent(value)
    if isinstance(value, UserDict | UserList):
        return cast("UserDict[Any, Any]", value).data
    if isinstance(value, ChainMap):
        return cast("ChainMap[Any, Any]", value).maps
    if isinstance(value, MappingProxyType):  # it does not say of what, but the collector knows
        return gc.get_referents(cast(object, value))[0]
    return value


def _referent(value: Any) -> Any:
    if type(value) is not ProxyType:
        return cast("ref[Any]", value)() if isinstance(value, ref) else value
    try:
        # A proxy answers like its referent, but for this: a bound method tells whose it is.
        return cast(Any, value).__init__.__self__
    except ReferenceError:
        return None
