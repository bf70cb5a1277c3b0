"""Collects the outputs of a predict pass on the host."""

from typing import Any

import torch
from torch import Tensor

from fitkit.data.structure import leaves, map_leaves
from fitkit.loop.callback import Callback
from fitkit.loop.events import Phase
from fitkit.loop.state import State

__all__ = ["OutputCollector"]


class OutputCollector(Callback):
    """Keep what the model gives in a predict pass, for `FitLoop.predict`.

    Reads:  state.outputs, nested tensors of shape (batch, ...).
    Syncs:  once per batch of a predict pass.
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
        self._passes[-1].append(map_leaves(_to_host, state.outputs))

    def take(self) -> Any:
        """Return the outputs of the pass, numpy arrays of shape (samples, ...), and forget them."""
        batches, self._done = self._done, []
        columns = zip(*([leaf for _, leaf in leaves(batch)] for batch in batches), strict=True)
        joined = iter([torch.cat(column).numpy() for column in columns])  # sync: never, on the CPU
        return map_leaves(lambda _: next(joined), batches[0])

    def _leave(self) -> None:
        self._done = self._passes.pop()


def _to_host(tensor: Tensor) -> Tensor:
    # numpy knows no bfloat16
    tensor = tensor.float() if tensor.dtype is torch.bfloat16 else tensor
    return tensor.detach().cpu()  # sync: once per batch, predictions are wanted on the host
