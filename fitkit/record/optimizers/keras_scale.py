"""Keras's dynamic loss scaling, without its branches while the step is traced."""

from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast, final

from fitkit.record.loss_scale import apply_without_branches
from fitkit.record.optimizers.live import Live

__all__ = ["KerasScale"]


@final
class KerasScale(Live):
    """Lets a `LossScaleOptimizer` update and take back, instead of asking a tensor whether to.

    Args:
        optimizer: A `keras.optimizers.LossScaleOptimizer`.
    """

    def __init__(self, optimizer: Any) -> None:
        self._optimizer = optimizer

    @contextmanager
    def traced(self) -> Generator[None]:
        """Replace `apply`."""
        attributes = cast("dict[str, Any]", vars(self._optimizer))
        attributes["apply"] = partial(apply_without_branches, self._optimizer)
        try:
            yield
        finally:
            del attributes["apply"]
