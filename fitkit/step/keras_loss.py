"""LOSS, with a Keras loss."""

from typing import Any, final

from fitkit.errors import brief
from fitkit.interop import is_keras, keras
from fitkit.loop.state import State
from fitkit.step.by_name import by_name
from fitkit.step.first_batch import FirstBatch
from fitkit.step.loss_checks import check_loss, check_targets, kind_of, require_targets

__all__ = ["KerasLoss"]


@final
class KerasLoss(FirstBatch):
    """Fill LOSS with a Keras loss, in Keras's argument order: (targets, outputs).

    Args:
        loss: A `keras.losses.Loss`, its name ("mse", "CategoricalCrossentropy"), or a function
            `f(y_true, y_pred)` that gives one value per sample.

    Reads:  state.outputs, state.targets, state.sample_weight of shape (batch,) or None.
    Writes: state.loss, shape ().
    Logs:   nothing; Metrics logs the loss.
    Syncs:  once per run and phase, on the first batch with class indices, to check their range.
    Raises: TypeError for a class instead of an instance; ConfigError for an unknown name or another
        Keras backend; DataError for targets that do not fit or a loss that is no scalar.

    Example:
        ```python
        import keras
        from fitkit import KerasLoss

        loss = KerasLoss(keras.losses.CategoricalCrossentropy(from_logits=True))
        ```
    """

    def __init__(self, loss: Any) -> None:
        super().__init__()
        self._loss = as_keras_loss(loss)
        self._kind = kind_of(getattr(self._loss, "function", self._loss))

    @property
    def loss(self) -> Any:
        """The loss function, for those that must know how it reduces."""
        return self._loss

    def check(self, state: State) -> None:
        """Check that there are targets, and that they fit this loss."""
        require_targets(state)
        check_targets(self._kind, state)

    def on_loss(self, state: State) -> None:
        """Compute the loss."""
        self.check_first(state)
        state.loss = check_loss(
            self.compute(state.targets, state.outputs, state.sample_weight), state
        )

    def compute(self, targets: Any, outputs: Any, weight: Any = None) -> Any:
        """Return the loss of `outputs`, shape (), for actions that make their own targets."""
        return self._loss(targets, outputs, sample_weight=weight)


def as_keras_loss(loss: Any) -> Any:
    """Return a `keras.losses.Loss` for an instance, a name or a function.

    Raises:
        TypeError: If it is a class or no loss at all.
        ConfigError: If Keras knows no loss of that name.
    """
    losses = keras().losses
    if is_keras(loss, "losses.Loss"):
        return loss
    if isinstance(loss, type) or not (callable(loss) or isinstance(loss, str)):
        name = loss.__name__ if isinstance(loss, type) else brief(loss)
        raise TypeError(
            f"KerasLoss got {name}, expected a keras.losses.Loss, its name, or a function\n"
            "Pass an instance: keras.losses.MeanSquaredError()."
        )
    function = by_name("loss", losses, loss) if isinstance(loss, str) else loss
    if is_keras(function, "losses.Loss"):
        return function

    class FunctionLoss(losses.Loss):
        function: Any

        def call(self, y_true: Any, y_pred: Any) -> Any:
            return function(y_true, y_pred)

    made = FunctionLoss(name=getattr(function, "__name__", None))
    made.function = function
    return made
