"""Collects the outputs of a predict pass on the host."""

from typing import Any

import torch
from torch import Tensor

from fitkit.data.rows import check_rows, joined
from fitkit.data.structure import map_leaves
from fitkit.loop.callback import Callback
from fitkit.loop.events import Phase
from fitkit.loop.state import State

__all__ = ["OutputCollector"]


class OutputCollector(Callback):
    """Keep what the model gives in a predict pass, for `FitLoop.predict`.

    Reads:  state.outputs, nested tensors of shape (batch, ...).
    Syncs:  once per batch of a predict pass.
    Raises: DataError if an output is no tensor with a first dimension, or batches do not fit.
    """

    phases = frozenset({Phase.PREDICT})
    only_watches = True

    def __init__(self) -> None:
        self._passes: list[list[Any]] = []
        self._done: list[Any] = []

    def on_pass_begin(self, state: State) -> None:
        """Collect for this pass; a pass within it collects for itself."""
        self._passes.append([])
        state.exits.callback(self._leave)

    def on_batch_end(self, state: State) -> None:
        """Copy the outputs of this batch to the host."""
        check_rows(state.outputs, None, who="predict")
        self._passes[-1].append(map_leaves(_to_host, state.outputs))

    def take(self) -> Any:
        """Return the outputs of the pass, numpy arrays of shape (samples, ...), and forget them."""
        batches, self._done = self._done, []
        return map_leaves(Tensor.numpy, joined(batches, who="predict"))  # sync: never, on the CPU

    def _leave(self) -> None:
        self._done = self._passes.pop()


def _to_host(tensor: Tensor) -> Tensor:
    # numpy knows no bfloat16
    tensor = tensor.float() if tensor.dtype is torch.bfloat16 else tensor
    return tensor.detach().cpu()  # sync: once per batch, predictions are wanted on the host
