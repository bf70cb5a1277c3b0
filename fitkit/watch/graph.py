"""The graph of a model, for TensorBoard."""

import time
import warnings
from pathlib import Path
from typing import final

from fitkit.errors import brief
from fitkit.loop.callback import TRAIN_ONLY
from fitkit.loop.state import State
from fitkit.watch.board import Board
from fitkit.watch.op_graph import GraphRecorder, graph_proto
from fitkit.watch.step_context import StepContext

__all__ = ["Graph"]


@final
class Graph(Board):
    """Draw the operations of the model, grouped by layer, as it is called on the first batch.

    What that call does is noted while training does it: the model is not called once more. Under
    `Record` that step runs eagerly. A run that goes on draws none again.

    Args:
        log_dir: Where to; default is where the `TensorBoard` of the loop writes, or its run_dir.

    Reads:  state.model, and what it does in the first batch.
    Writes: a file, from the main process only.
    Logs:   nothing.
    Syncs:  never.
    Raises: nothing; a model that cannot be drawn is a warning.

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
    only_watches = True

    def __init__(self, log_dir: str | Path | None = None) -> None:
        super().__init__(log_dir)
        self._is_due = False
        self._has_tried = False
        self._recorder: GraphRecorder | None = None
        self._around: StepContext | None = None

    def on_fit_begin(self, state: State) -> None:
        """Open the files; see whether there is a graph already."""
        super().on_fit_begin(state)
        is_new = self.files is not None and self.files.is_new
        self._is_due = is_new and not self._has_tried

    def on_batch_begin(self, state: State) -> None:
        """Look on in the first batch."""
        if self._is_due and self._loop is not None:
            self._is_due, self._has_tried = False, True
            state.request_eager()
            self._recorder = GraphRecorder(state.model)
            self._around = StepContext(self._loop.runner, self._recorder.watching, eager=True)

    def on_batch_end(self, state: State) -> None:
        """Write the graph."""
        recorder = self._recorder
        if recorder is None:
            return
        self._stop_looking()
        if recorder.error is not None or not recorder.nodes:
            error = recorder.error or "it was not called in the first batch, or it is compiled"
            warnings.warn(
                f"Graph cannot draw {type(state.model).__name__}: {brief(error)}\n"
                "Training goes on, without that picture; leave Graph out to be spared of this.",
                stacklevel=2,
            )
        elif self.files is not None:
            self.files.add_graph(time.time(), graph_proto(recorder.nodes))
            self.files.flush()

    def on_close(self, state: State) -> None:
        """Leave nothing behind after an error in the first batch."""
        self._stop_looking()
        super().on_close(state)

    def _stop_looking(self) -> None:
        if self._around is not None:
            self._around.remove()
        self._around = self._recorder = None
