"""All actions of a training step at once, by the model's own `train_step`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, final

from fitkit.loop.callback import TRAIN_ONLY, Callback
from fitkit.loop.events import REGION, Phase
from fitkit.loop.state import State
from fitkit.optimizer_state import held_optimizers, load_optimizer, optimizer_state
from fitkit.step.whole_step import batch_data, check_step, publish_logs

if TYPE_CHECKING:
    from fitkit.loop.fit_loop import FitLoop

__all__ = ["TrainStep"]


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

    def attach(self, loop: "FitLoop") -> None:
        """Keep the model: its optimizers are its own affair, but their state is saved here."""
        self._model = loop.model

    def state_dict(self) -> dict[str, Any]:
        """Return the states of the optimizers among the attributes of the model."""
        held = held_optimizers(self._model)
        return {"optimizers": {name: optimizer_state(each) for name, each in held.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore them; a Keras optimizer that was not built yet is built for all weights."""
        held = held_optimizers(self._model)
        for name, saved in state["optimizers"].items():
            if name in held:
                variables: Any = getattr(self._model, "trainable_variables", ())
                load_optimizer(held[name], saved, variables)

    def on_pass_begin(self, state: State) -> None:
        """Check that the model can do it."""
        check_step(self, state, "train_step")

    def on_forward(self, state: State) -> None:
        """Run the whole step."""
        publish_logs(state, state.model.train_step(batch_data(state)), "train_step")
