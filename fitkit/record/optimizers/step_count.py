"""The host's copy of a Keras optimizer's step counter, which lives on the device."""

from typing import Any, final

from torch import Tensor

__all__ = ["StepCount"]


@final
class StepCount:
    """Counts along with the replays, and reads the counter only if somebody else wrote it.

    torch counts the writes into each tensor. If there was one besides those of the replays (an
    eager step, a loaded checkpoint, an assignment), the copy is out of date.

    Args:
        optimizer: A `keras.optimizers.Optimizer`.
    """

    def __init__(self, optimizer: Any) -> None:
        self._optimizer = optimizer
        self._tensor: Tensor | None = None
        self._version = -1
        self._value = 0

    def read(self) -> int:
        """Return how often `apply` ran so far. Syncs: after a write of somebody else."""
        tensor: Tensor = self._optimizer._iterations.value
        if tensor is not self._tensor or tensor._version != self._version:
            self._value = int(tensor)  # sync: only after somebody else than a replay wrote it
            self._tensor, self._version = tensor, tensor._version
        return self._value

    def ran(self, written_once: frozenset[int]) -> None:
        """Count one more if a replay wrote the counter; `written_once` are ids of tensors.

        Who takes updates back writes it a second time: then the device alone knows.
        """
        if self._tensor is not None and id(self._tensor) in written_once:
            self._value += 1
            self._version = self._tensor._version
