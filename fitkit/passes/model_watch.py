"""Notices when somebody changes modes or trainable weights in the middle of a training pass."""

import warnings
from collections.abc import Iterable, Iterator
from types import FunctionType
from typing import cast

from torch import nn

from fitkit.interop import modules_of
from fitkit.loop.callback import Callback
from fitkit.loop.listener import Listener

__all__ = ["ModelWatch"]

_SWITCHES = {"requires_grad", "requires_grad_", "trainable", "train", "eval", "training"}


class ModelWatch:
    """Compares the flags of a model with those remembered; warns once. Syncs: never."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._flags: list[tuple[str, bool]] = []
        self._warned = False

    def remember(self) -> None:
        """Take the flags as they are now for what is meant."""
        self._flags = list(self._read())

    def warn_of_changes(self, callbacks: Iterable[Callback]) -> None:
        """Warn if a flag differs, naming it and the callbacks whose code switches such flags."""
        if self._warned:
            return
        pairs = zip(self._read(), self._flags, strict=False)  # layers may have been added
        changed = [name for (name, now), (_, before) in pairs if now != before]
        if not changed:
            return
        self._warned = True
        suspects = [type(c).__name__ for c in callbacks if _SWITCHES & set(_names_in(c))]
        warnings.warn(
            f"{len(changed)} flags of the model changed in the middle of a training pass\n"
            f"The first is {changed[0]}; likely changed by: {', '.join(suspects) or 'unknown'}.\n"
            "If it is meant, do it in on_pass_begin; weights must be known to the optimizer.",
            stacklevel=2,
        )

    def _read(self) -> Iterator[tuple[str, bool]]:
        for name, parameter in self._model.named_parameters():
            yield f"requires_grad of '{name}'", parameter.requires_grad
        named = cast("Iterable[tuple[str, nn.Module]]", self._model.named_modules())
        names = {module: name for name, module in named}
        for module in modules_of(self._model):
            name = names.get(module) or getattr(module, "name", None) or type(module).__name__
            yield f"the train mode of '{name}'", module.training


def _names_in(callback: Callback) -> Iterator[str]:
    """Yield every name that the code of a callback's own class or function uses."""
    members = list(vars(type(callback)).values())
    if isinstance(callback, Listener):
        members = [callback.function]
    for member in members:
        if isinstance(member, FunctionType):
            yield from member.__code__.co_names
