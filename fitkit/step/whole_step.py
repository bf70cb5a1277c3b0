"""All actions of a step at once, with the `train_step`, `test_step`, `predict_step` of a model."""

from collections.abc import Mapping
from typing import Any, cast, final

from torch import Tensor

from fitkit.data import default_unpack
from fitkit.data.structure import leaves
from fitkit.errors import ConfigError, DataError
from fitkit.loop.callback import TRAIN_ONLY, Callback
from fitkit.loop.events import REGION, Event, Phase
from fitkit.loop.state import State

__all__ = ["PredictStep", "TestStep", "TrainStep"]


@final
class TrainStep(Callback):
    """Fill all actions of a training step with the model's own `train_step(data)`.

    `data` is the batch as the loader gives it, on the device. The model clears gradients, computes
    the loss, updates weights and metrics by itself; so nothing else may listen to moments of the
    step, such as GRADS_READY.

    Reads:  state.batch; what `unpack=` or a callback made of it, as (inputs, targets, weights).
    Writes: state.step_logs, the dict that `train_step` returns; state.step_values, shape () each.
    Logs:   nothing itself.
    Syncs:  never itself.
    Raises: ConfigError if the model has no `train_step`, or a callback needs the outputs of a step;
        DataError if it returns no dict.

    Example:
        ```python
        import keras
        from fitkit import FitLoop, TensorLoader, TrainStep

        class Model(keras.Model):
            def train_step(self, data):
                x, y = data
                self.zero_grad()
                loss = self.compute_loss(y=y, y_pred=self(x, training=True))
                loss.backward()
                weights = self.trainable_weights
                self.optimizer.apply([v.value.grad for v in weights], weights)
                return {"loss": loss}

        inputs = keras.Input((4,))
        model = Model(inputs, keras.layers.Dense(1)(inputs))
        model.compile(optimizer="sgd", loss="mse")
        batches = TensorLoader(keras.random.normal((64, 4)), keras.random.normal((64, 1)))
        loop = FitLoop(model, batches, callbacks=[TrainStep()])
        loop.fit(epochs=1)
        ```
    """

    phases = TRAIN_ONLY
    fills = frozenset(REGION[Phase.TRAIN])

    def on_pass_begin(self, state: State) -> None:
        """Check that the model can do it."""
        _check(self, state, "train_step")

    def on_forward(self, state: State) -> None:
        """Run the whole step."""
        _publish(state, state.model.train_step(_data(state)), "train_step")


@final
class TestStep(Callback):
    """Fill all actions of a validation step with the model's own `test_step(data)`.

    Reads:  state.batch; what `unpack=` or a callback made of it, as (inputs, targets, weights).
    Writes: state.step_logs, the dict that `test_step` returns; state.step_values, shape () each.
    Logs:   nothing itself.
    Syncs:  never itself.
    Raises: ConfigError if the model has no `test_step`, or a callback needs the outputs of a step;
        DataError if it returns no dict.

    Example:
        ```python
        from fitkit import TestStep

        step = TestStep()
        ```
    """

    phases = frozenset({Phase.VAL})
    fills = frozenset(REGION[Phase.VAL])

    def on_pass_begin(self, state: State) -> None:
        """Check that the model can do it."""
        _check(self, state, "test_step")

    def on_forward(self, state: State) -> None:
        """Run the whole step."""
        _publish(state, state.model.test_step(_data(state)), "test_step")


@final
class PredictStep(Callback):
    """Fill FORWARD of a predict pass with the model's own `predict_step(data)`.

    Reads:  state.batch; what `unpack=` or a callback made of it, as (inputs, targets, weights).
    Writes: state.outputs, what `predict_step` returns.
    Logs:   nothing.
    Syncs:  never itself.
    Raises: ConfigError if the model has no `predict_step`.

    Example:
        ```python
        from fitkit import PredictStep

        step = PredictStep()
        ```
    """

    phases = frozenset({Phase.PREDICT})
    fills = frozenset({Event.FORWARD})

    def on_pass_begin(self, state: State) -> None:
        """Check that the model can do it."""
        _check(self, state, "predict_step")

    def on_forward(self, state: State) -> None:
        """Run the step."""
        state.outputs = state.model.predict_step(_data(state))


def _check(callback: Callback, state: State, method: str) -> None:
    name = type(callback).__name__
    if not callable(getattr(state.model, method, None)):
        raise ConfigError(
            f"{name} got the model {type(state.model).__name__}, which has no method {method}\n"
            f"Define {method}(self, data), or use the actions of supervised(loss=, optimizer=)."
        )
    if "outputs" in state.needs and state.phase is not Phase.PREDICT:
        raise ConfigError(
            f"a callback needs the outputs of each step, but {name} keeps them to itself\n"
            f"Detach it, or leave {method} to compute them: use the actions of a stack instead."
        )


def _data(state: State) -> Any:
    """Return the batch as the loader gave it, or its parts where somebody has changed them."""
    parts = (state.inputs, state.targets, state.sample_weight)
    if state.unpack is None and _same(default_unpack(state.batch), parts):
        return state.batch
    if state.sample_weight is not None:
        return parts
    return parts[:1] if state.targets is None else parts[:2]


def _same(first: Any, second: Any) -> bool:
    """Return whether two structures hold the very same tensors."""
    pairs = zip(leaves(first), leaves(second), strict=False)
    return len(list(leaves(first))) == len(list(leaves(second))) and all(
        path == other and leaf is its for (path, leaf), (other, its) in pairs
    )


def _publish(state: State, logs: Any, method: str) -> None:
    if not isinstance(logs, Mapping | None):
        raise DataError(
            f"{type(state.model).__name__}.{method} returned a {type(logs).__name__}, "
            "expected a dict of logs\n"
            'Return the values by name, for example {"loss": loss}.'
        )
    state.step_logs = dict(cast("Mapping[str, Any]", logs or {}))
    for name, value in state.step_logs.items():
        if isinstance(value, Tensor) and value.dim() == 0:
            state.step_values[name] = value.detach()
