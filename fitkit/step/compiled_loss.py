"""LOSS, the way a Keras model was compiled."""

from collections.abc import Hashable, Mapping
from typing import Any, final

from fitkit.interop import keras, overrides
from fitkit.loop.callback import Callback
from fitkit.loop.events import Phase
from fitkit.loop.state import State
from fitkit.step.by_name import by_name
from fitkit.step.compiled_checks import check_target_names, check_weights
from fitkit.step.first_batch import FirstBatch
from fitkit.step.loss_checks import check_loss, check_targets, kind_of, require_targets

__all__ = ["CompiledLoss"]


@final
class CompiledLoss(Callback):
    """Fill LOSS with `model.compute_loss`: loss, loss_weights, `add_loss`, regularizers.

    The method is the model's own if its class overrides it, also without the argument `training`.

    Reads:  state.inputs, state.targets, state.outputs, state.sample_weight, state.phase.
    Writes: state.loss, shape ().
    Logs:   nothing; CompiledMetrics tracks the loss.
    Syncs:  once per pass, on the first batch with class indices, to check their range.
    Raises: DataError for targets or weights that do not fit, or a loss that is no scalar;
        ConfigError for a loss that Keras does not know.

    Example:
        ```python
        from fitkit import CompiledLoss

        loss = CompiledLoss()  # compiled() adds it
        ```
    """

    phases = frozenset({Phase.TRAIN, Phase.VAL})

    def __init__(self) -> None:
        self._first = FirstBatch()

    @property
    def step_key(self) -> Hashable:
        """Whether the checks are done: a step that checks is another one."""
        return self._first.checked

    def on_open(self, state: State) -> None:
        """Check anew in every run."""
        self._first.open()

    def on_pass_begin(self, state: State) -> None:
        """Check the first batch of a phase."""
        self._first.enter(state.phase)

    def on_loss(self, state: State) -> None:
        """Compute the loss."""
        if not self._first.checked:
            _check(state)
            self._first.done(state.phase)
        loss = state.model._compute_loss(
            x=state.inputs,
            y=state.targets,
            y_pred=state.outputs,
            sample_weight=state.sample_weight,
            training=state.phase is Phase.TRAIN,
        )
        if loss is not None or state.phase is Phase.TRAIN:  # an override may have none to evaluate
            state.loss = check_loss(loss, state)


def _check(state: State) -> None:
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
