"""What callbacks put into `state.logs`, as numbers of Python."""

from typing import Any

import numpy as np
from torch import Tensor

from fitkit.errors import brief

__all__ = ["host_number"]

_ONLY_NUMBERS = "Log numbers only; pictures and text have callbacks of their own."
_REAL_PARTS = "Log abs(value), or value.real and value.imag."


def host_number(name: str, value: object) -> float:
    """Return a logged value as a float, int or bool of Python.

    Args:
        name: The key in `state.logs`, for messages.
        value: A number of Python, numpy or torch; an array or tensor of shape (), any device.

    Raises:
        TypeError: If it is something else, a complex number, or has another shape.
        OverflowError: If it is an int that no float can hold.

    Syncs: once for a tensor.
    """
    found = value
    if isinstance(value, Tensor | np.generic | np.ndarray):
        found = _item(name, value)
    if isinstance(found, int | float):
        return _that_a_float_can_hold(name, found)
    what, then = f"a {type(found).__name__}, expected a number", _ONLY_NUMBERS
    if isinstance(found, complex):
        what, then = "a complex number, expected a real one", _REAL_PARTS
    raise TypeError(f"state.logs[{brief(name)}] is {brief(found)}, {what}\n{then}")


def _item(name: str, value: Any) -> object:
    if value.ndim != 0:
        raise TypeError(
            f"state.logs[{brief(name)}] is a tensor of shape {tuple(value.shape)}, expected a "
            "number\n"
            f"Reduce it; state.log({brief(name)}, value) logs a scalar without waiting for the "
            "device."
        )
    found = value.item()  # sync: once per epoch, somebody has put a tensor where numbers belong
    if type(found) is np.longdouble:
        return float(found)  # sync: never, numpy
    return found


def _that_a_float_can_hold(name: str, value: float) -> float:
    """Return `value`; files, charts and comparisons have floats."""
    try:
        float(value)  # sync: never, a number of Python
    except OverflowError as error:
        raise OverflowError(
            f"state.logs[{brief(name)}] is an int of {int(value).bit_length()} bits, expected a "
            "number that a float can hold (1024 bits)\n"
            "Log its logarithm, as math.log10(value), or a part of it."
        ) from error
    return value
