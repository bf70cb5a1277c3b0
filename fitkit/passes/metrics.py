"""Loss and metrics of a pass."""

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, final

from fitkit.errors import CheckpointMismatchError
from fitkit.loop.callback import Callback
from fitkit.loop.events import Phase
from fitkit.loop.state import State
from fitkit.passes.metric_adapter import adapt_all, scalars

__all__ = ["Metrics"]


@final
class Metrics(Callback):
    """Average the loss and update metrics over a pass; read them once at its end.

    All metrics are reset at PASS_BEGIN. A validation in the middle of a training pass leaves the
    training values untouched. The loss of a pass is the mean over its samples, so a smaller last
    batch counts for less.

    Args:
        metrics: Keras metrics and torchmetrics, a list or a dict by name. Keras ones get the
            sample weights of the batch.

    Reads:  state.loss, state.outputs, state.targets, state.sample_weight.
    Writes: state.logs at PASS_END.
    Logs:   loss (mean per sample) and each metric by its name, with the prefix of the pass; with
        turns, <turn>_loss. Metrics that give several values log name_0, name_1 or name_key.
    Syncs:  once per pass. Some metrics sync by themselves (MeanIoU of Keras 3.15).
    Raises: TypeError for something that is no metric; ConfigError for a doubled or reserved name;
        DeviceError for a Keras metric on another device.

    Example:
        ```python
        import keras
        from fitkit import Metrics

        metrics = Metrics([keras.metrics.CategoricalAccuracy(name="accuracy")])
        ```
    """

    phases = frozenset({Phase.TRAIN, Phase.VAL})

    def __init__(self, metrics: Iterable[Any] | Mapping[str, Any] = ()) -> None:
        self._metrics = adapt_all(metrics)
        self._num_open = 0
        self._late: dict[str, Any] = {}  # saved states of metrics that are built by a batch

    @property
    def step_key(self) -> Hashable:
        """Which tensors the metrics add to."""
        return tuple([metric.state_ids for metric in self._metrics])

    def on_pass_begin(self, state: State) -> None:
        """Put the values of an outer pass aside and start from nothing."""
        outer = [metric.snapshot() for metric in self._metrics] if self._num_open else []
        self._num_open += 1
        state.exits.callback(self._leave, outer)
        for metric in self._metrics:
            metric.check_device(state.device)
            metric.reset()

    def on_update_metrics(self, state: State) -> None:
        """Add the batch."""
        if hasattr(state, "loss"):
            state.log(f"{state.turn}_loss" if state.turn else "loss", state.loss)
        for metric in self._metrics:
            metric.update(state.targets, state.outputs, state.sample_weight)
            if metric.name in self._late:  # the update has built it, so it can go on now
                metric.load(self._late.pop(metric.name))
                metric.update(state.targets, state.outputs, state.sample_weight)

    def state_dict(self) -> dict[str, Any]:
        """Return the states of the metrics by name."""
        return {metric.name: metric.saved() for metric in self._metrics}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore them, those that are not built yet at the first batch.

        Raises:
            CheckpointMismatchError: If there are others now.
        """
        names = [metric.name for metric in self._metrics]
        if names != list(state):
            raise CheckpointMismatchError(
                f"the metrics are {names}, saved were {list(state)}\n"
                "Use those of the saved run, in their order."
            )
        self._late = {m.name: state[m.name] for m in self._metrics if not m.load(state[m.name])}

    def on_pass_end(self, state: State) -> None:
        """Read everything at once."""
        if hasattr(state, "batch_index"):
            for metric in self._metrics:
                for name, value in scalars(metric.name, metric.result()):
                    state.log(name, value, reduce="last")
            state.deliver_logs()

    def running(self, state: State) -> dict[str, Any]:
        """Return the values of the pass so far. Syncs: once, for those that are logged."""
        values: dict[str, Any] = dict(state.log_buffer.read())
        for metric in self._metrics:
            values.update(scalars(metric.name, metric.result()))
        return values

    def running_means(self, state: State) -> Callable[[str], float | None]:
        """Return what reads one of them in this pass, None if it is no logged mean.

        Syncs: never; once each time it is called.
        """
        return state.log_buffer.mean

    def _leave(self, outer: list[Any]) -> None:
        """Bring back the values of the outer pass, if there is one."""
        self._num_open -= 1
        if self._num_open:
            for metric, snapshot in zip(self._metrics, outer, strict=True):
                metric.restore(snapshot)
