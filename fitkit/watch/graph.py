"""The graph of a model, for TensorBoard."""

import time
import warnings
from pathlib import Path
from typing import final

from fitkit.loop.callback import TRAIN_ONLY
from fitkit.loop.state import State
from fitkit.watch.board import Board
from fitkit.watch.op_graph import graph_of, graph_proto

__all__ = ["Graph"]


@final
class Graph(Board):
    """Draw the operations of the model, grouped by layer, as it is called on the first batch.

    It is called once more with tensors that have a shape and no numbers: nothing is computed, and
    no weight, statistic or random stream moves. A run that goes on draws none again.

    Args:
        log_dir: Where to; default is where the `TensorBoard` of the loop writes, or its run_dir.

    Reads:  state.model, state.inputs.
    Writes: a file, from the main process only.
    Logs:   nothing.
    Syncs:  never.
    Raises: nothing; a model that cannot be called like that is a warning.

    Example:
        ```python
        import tempfile

        import torch
        from fitkit import FitLoop, Graph, TensorBoard, TensorLoader, supervised

        model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
        loop = FitLoop(model, TensorLoader(torch.randn(64, 4), torch.randn(64, 1)))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        loop.attach(supervised(loss=torch.nn.MSELoss(), optimizer=optimizer))
        loop.attach(TensorBoard(tempfile.mkdtemp()), Graph())
        loop.fit(epochs=1)
        ```
    """

    phases = TRAIN_ONLY

    def __init__(self, log_dir: str | Path | None = None) -> None:
        super().__init__(log_dir)
        self._is_due = False
        self._has_tried = False

    def on_fit_begin(self, state: State) -> None:
        """Open the files; see whether there is a graph already."""
        super().on_fit_begin(state)
        is_new = self.files is not None and self.files.is_new
        self._is_due = is_new and not self._has_tried

    def on_batch_end(self, state: State) -> None:
        """Draw the graph behind the first batch: what is built lazily has been built."""
        if not self._is_due or self.files is None:
            return
        self._is_due, self._has_tried = False, True
        try:
            graph = graph_proto(graph_of(state.model, state.inputs))
        except Exception as error:  # whatever a model does; a picture is not worth the run
            reason = next(iter(str(error).splitlines()), "")
            warnings.warn(
                f"Graph cannot draw {type(state.model).__name__}: "
                f"{type(error).__name__}: {reason[:200]}\n"
                "Training goes on, without that picture; leave Graph out to be spared of this.",
                stacklevel=2,
            )
            return
        self.files.add_graph(time.time(), graph)
        self.files.flush()
