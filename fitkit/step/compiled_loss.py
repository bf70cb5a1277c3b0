"""LOSS, the way a Keras model was compiled."""

from collections.abc import Mapping
from typing import Any, final

from fitkit.interop import keras, overrides
from fitkit.loop.events import Phase
from fitkit.loop.state import State
from fitkit.step.by_name import by_name
from fitkit.step.compiled_checks import check_target_names, check_weights
from fitkit.step.first_batch import FirstBatch
from fitkit.step.loss_checks import check_loss, check_targets, kind_of, require_targets

__all__ = ["CompiledLoss"]


@final
class CompiledLoss(FirstBatch):
    """Fill LOSS with `model.compute_loss`: loss, loss_weights, `add_loss`, regularizers.

    The method is the model's own if its class overrides it, also without the argument `training`.

    Reads:  state.inputs, state.targets, state.outputs, state.sample_weight, state.phase.
    Writes: state.loss, shape ().
    Logs:   nothing; CompiledMetrics tracks the loss.
    Syncs:  once per run and phase, on the first batch with class indices, to check their range.
    Raises: DataError for targets or weights that do not fit, or a loss that is no scalar;
        ConfigError for a loss that Keras does not know.

    Example:
        ```python
        from fitkit import CompiledLoss

        loss = CompiledLoss()  # compiled() adds it
        ```
    """

    def check(self, state: State) -> None:
        """Check the batch, as far as it is known what the model does with it."""
        compiled: Any = state.model._compile_loss
        if compiled is None or overrides(state.model, "compute_loss"):
            return
        require_targets(state)
        check_target_names(state, compiled)
        check_weights(state)
        loss: Any = compiled._user_loss
        if isinstance(loss, str) and loss.lower() not in ("crossentropy", "ce"):
            loss = by_name("loss", keras().losses, loss)
        if not isinstance(loss, Mapping | list | tuple):  # a loss per output knows what it is given
            check_targets(kind_of(loss), state)

    def on_loss(self, state: State) -> None:
        """Compute the loss."""
        self.check_first(state)
        loss = state.model._compute_loss(
            x=state.inputs,
            y=state.targets,
            y_pred=state.outputs,
            sample_weight=state.sample_weight,
            training=state.phase is Phase.TRAIN,
        )
        if loss is not None or state.phase is Phase.TRAIN:  # an override may have none to evaluate
            state.loss = check_loss(loss, state)
