"""What Keras's `fit` does around its steps."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast, final

import torch
from torch import Tensor

from fitkit.data import process_streams, restore_process
from fitkit.errors import ConfigError
from fitkit.interop import is_keras, keras
from fitkit.loop.callback import Callback
from fitkit.loop.events import Phase
from fitkit.loop.state import State
from fitkit.optimizer_state import load_variables, variables_of
from fitkit.passes.metric_adapter import scalars

if TYPE_CHECKING:
    from fitkit.loop.fit_loop import FitLoop

__all__ = ["CompiledRun"]


@final
class CompiledRun(Callback):
    """Reset the metrics of a compiled model before each pass and read them after it.

    The results are those of `model.metrics`, or what the last step of an overridden `train_step`,
    `test_step` or `compute_metrics` returned, as in Keras. A validation in the middle of a training
    pass leaves the training values untouched. When `fit` ends, averaged weights (`use_ema`) take
    the place of the trained ones. Passes run in the device scope of the loop.

    Reads:  state.model, state.step_logs.
    Writes: state.logs at PASS_END; the variables of `model.metrics`; with `use_ema`, the weights.
    Logs:   loss and metrics by the names Keras gives them, with the prefix of the pass; a metric of
        several values as name_0, name_1.
    Syncs:  once per pass.
    Raises: ConfigError if the model was compiled anew, if there is a Metrics besides, or for an
        option of `compile` that needs Record and does not have it.

    Example:
        ```python
        from fitkit import CompiledRun

        run = CompiledRun()  # compiled() adds it
        ```
    """

    only_watches = True

    def __init__(self) -> None:
        self._num_open = 0
        self._late: list[Tensor] = []  # saved values of variables that are not made yet

    def attach(self, loop: "FitLoop") -> None:
        """Keep the loop, and what the stack was expanded for."""
        self._loop = loop
        self._optimizer: Any = getattr(loop.model, "optimizer", None)

    def on_open(self, state: State) -> None:
        """Refuse a second owner of the same logs."""
        if any(type(callback).__name__ == "Metrics" for callback in self._loop.callbacks):
            raise ConfigError(
                "CompiledRun, of compiled(), and Metrics both log the loss, expected one of them\n"
                "Detach Metrics and give its metrics to model.compile(metrics=[...]); or use "
                "supervised(loss=, optimizer=, metrics=) in place of compiled()."
            )

    def on_pass_begin(self, state: State) -> None:
        """Put the values of an outer pass aside and start from nothing."""
        self._check(state.model)
        state.exits.enter_context(keras().device(str(state.device)))
        if state.phase is not Phase.PREDICT:
            self._late = []  # of a pass that has ended: this one starts from nothing
            outer = _snapshot(state.model) if self._num_open else {}
            self._num_open += 1
            state.exits.callback(self._leave, state.model, outer)
            state.model.reset_metrics()

    def on_pass_end(self, state: State) -> None:
        """Read everything at once."""
        if state.phase is Phase.PREDICT or not hasattr(state, "batch_index"):
            return
        for name, value in _flat(_results(state)):
            if isinstance(value, int | float):  # a train_step that read it itself
                state.logs[state.prefix + name] = value
                continue
            for full_name, tensor in scalars(name, value):
                state.log(full_name, tensor, reduce="last")
        state.deliver_logs()

    def running(self, state: State) -> dict[str, Any]:
        """Return the values of the pass so far, on the device. Syncs: never."""
        return dict(_flat(_results(state)))

    def on_batch_begin(self, state: State) -> None:
        """Build the metrics of a resumed pass, which Keras does at the first batch."""
        if self._late:
            late, self._late = self._late, []
            _build(state)
            load_variables(_variables(state.model), late, "the compiled model's metrics")

    def state_dict(self) -> dict[str, Any]:
        """Return the variables of the metrics."""
        return {"metrics": variables_of(_variables(self._loop.model))}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore them, or wait for the first batch if they do not exist yet."""
        saved, now = state["metrics"], _variables(self._loop.model)
        self._late = saved if len(saved) > len(now) else []
        if not self._late:
            load_variables(now, saved, "the compiled model's metrics")

    def on_fit_end(self, state: State) -> None:
        """Put averaged weights in place, if the optimizer keeps them."""
        if is_keras(self._optimizer, "optimizers.Optimizer"):
            self._optimizer.finalize_variable_values(state.model.trainable_weights)

    def _leave(self, model: Any, outer: dict[int, Tensor]) -> None:
        """Bring back the values of the outer pass, if there is one."""
        self._num_open -= 1
        if self._num_open:
            model.reset_metrics()  # those that were not there before
            with torch.no_grad():
                for variable in _variables(model):
                    if id(variable) in outer:
                        variable.value.copy_(outer[id(variable)])

    def _check(self, model: Any) -> None:
        if model.optimizer is not self._optimizer:
            raise ConfigError(
                "the model was compiled again after compiled() had been attached\n"
                "Make a new FitLoop for it; a loop keeps the optimizer it was made with."
            )
        names = [type(callback).__name__ for callback in self._loop.callbacks]
        asked = "jit_compile=True" if model.jit_compile else ""
        if model.steps_per_execution > 1:
            asked = f"steps_per_execution={model.steps_per_execution}"
        if asked and "Record" not in names:
            raise ConfigError(
                f"the model was compiled with {asked}, which a loop does not do by itself\n"
                "Attach Record(): it replays compiled steps without Python. Or leave it out."
            )


def _results(state: State) -> Mapping[str, Any]:
    """Return the logs of the pass: the metrics, or those of the last step if it has others."""
    model: Any = state.model
    if not hasattr(state, "step_logs"):
        return model.get_metrics_result()
    parts = (model._compile_metrics, model._compile_loss)
    if any(part is not None and not part.built for part in parts):
        return state.step_logs  # nobody has updated them, so nobody wants to read them
    return model._get_metrics_result_or_logs(state.step_logs)


def _build(state: State) -> None:
    """Let the model make what it makes at its first batch, without counting the batch."""
    parts = (state.inputs, state.targets, state.sample_weight)
    model: Any = state.model
    streams = process_streams()
    model._symbolic_build(data_batch=parts)
    restore_process(streams)


def _flat(logs: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    """Yield the logs in Keras's order, those of nested dicts by their inner name."""
    for name, value in logs.items():
        if isinstance(value, Mapping):
            yield from _flat(cast("Mapping[str, Any]", value))
        else:
            yield name, value


def _variables(model: Any) -> list[Any]:
    return [variable for metric in model.metrics for variable in metric.variables]


def _snapshot(model: Any) -> dict[int, Tensor]:
    return {id(variable): variable.value.detach().clone() for variable in _variables(model)}
