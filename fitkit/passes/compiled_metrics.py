"""UPDATE_METRICS, the way a Keras model was compiled."""

from typing import Any, final

from fitkit.interop import overrides
from fitkit.loop.callback import Callback
from fitkit.loop.events import Phase
from fitkit.loop.state import State

__all__ = ["CompiledMetrics"]


@final
class CompiledMetrics(Callback):
    """Track the loss and update the metrics and weighted metrics a model was compiled with.

    A class that overrides `compute_metrics` has it called in every step. Otherwise results are only
    computed when they are read, once per pass.

    Reads:  state.loss, state.inputs, state.outputs, state.targets, state.sample_weight.
    Writes: the variables of `model.metrics`; state.step_values["loss"], shape ();
        state.step_logs, what an overridden `compute_metrics` returns.
    Logs:   nothing; CompiledRun reads the results at the end of the pass.
    Syncs:  never by itself. Some metrics sync by themselves (MeanIoU of Keras 3.15).
    Raises: nothing itself.

    Example:
        ```python
        from fitkit import CompiledMetrics

        metrics = CompiledMetrics()  # compiled() adds it
        ```
    """

    phases = frozenset({Phase.TRAIN, Phase.VAL})

    def __init__(self) -> None:
        self._own = False

    def on_pass_begin(self, state: State) -> None:
        """Ask once per pass whether the class has a method of its own."""
        self._own = overrides(state.model, "compute_metrics")

    def on_update_metrics(self, state: State) -> None:
        """Add the batch."""
        model: Any = state.model
        if hasattr(state, "loss"):
            loss = state.step_values["loss"] = state.loss.detach()
            model._loss_tracker.update_state(loss, sample_weight=state.batch_size)
        y, y_pred, weight = state.targets, state.outputs, state.sample_weight
        if self._own:
            state.step_logs = model.compute_metrics(state.inputs, y, y_pred, sample_weight=weight)
        elif model._compile_metrics is not None:
            model._compile_metrics.update_state(y, y_pred, weight)
