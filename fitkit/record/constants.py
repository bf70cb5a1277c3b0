"""Host numbers as tensors, made once: a number uploaded at every step would block the device."""

from typing import Any, final

import torch
from torch import Tensor
from torch.utils._python_dispatch import (
    _disable_current_modes,  # pyright: ignore[reportPrivateUsage]
)


@final
class Constants:
    """A cache of the tensors that stand for Python numbers in traced steps.

    Keras turns every Python number of a step into a tensor by ``torch.as_tensor(number)``. On a
    device that is a blocking copy per number and step. One tensor per (value, dtype, device)
    serves all programs; the tracer refuses a step that writes into one of them.

    Attributes:
        copied: Whether a step gets copies, so that it may write into them (`total += x`, where
            `total` began as a number). Copies that nobody writes into are folded away later.
    """

    def __init__(self) -> None:
        self.copied = False
        self._tensors: dict[tuple[Any, ...], Tensor] = {}

    def get(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the tensor that ``torch.as_tensor(*args, **kwargs)`` makes, from the cache.

        Args:
            *args: As for `torch.as_tensor`; the first is a number or a nest of numbers.
            **kwargs: ``dtype`` and ``device``.

        Returns:
            A real tensor, also in the middle of a trace. Never write into it.
        """
        defaults = (torch.get_default_dtype(), torch.get_default_device())
        key = (repr(args), repr(sorted(kwargs.items())), *defaults)
        if key not in self._tensors:
            with _disable_current_modes():
                self._tensors[key] = torch.as_tensor(*args, **kwargs)
        return self._tensors[key]

    def copy_from_now_on(self) -> None:
        """Hand out copies; forget the tensors that were written into while tracing."""
        self.copied = True
        self._tensors.clear()

    def ids(self) -> frozenset[int]:
        """Return the ``id`` of every cached tensor."""
        return frozenset(map(id, self._tensors.values()))


def is_number(value: object) -> bool:
    """Tell whether a value is made of Python numbers only: a number, or a list or tuple of them."""
    if isinstance(value, (list, tuple)):
        return all(map(is_number, value))  # pyright: ignore[reportUnknownArgumentType]
    return type(value) in (bool, int, float, complex)
