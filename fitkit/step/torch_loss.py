"""LOSS, with a torch loss function."""

from collections.abc import Callable
from typing import Any, final

from torch import Tensor, nn

from fitkit.data import describe
from fitkit.errors import ConfigError, DataError, brief
from fitkit.loop.state import State
from fitkit.step.first_batch import FirstBatch
from fitkit.step.loss_checks import check_loss, check_targets, kind_of, require_targets

__all__ = ["TorchLoss"]


@final
class TorchLoss(FirstBatch):
    """Fill LOSS with a function in torch's argument order: (outputs, targets).

    With sample weights, the function must give one value per sample (`reduction="none"`); the loss
    is then sum(weight * value) / batch size, as in Keras.

    Args:
        loss: A loss module such as `torch.nn.CrossEntropyLoss()`, or a function.

    Reads:  state.outputs, state.targets, state.sample_weight of shape (batch,) or None.
    Writes: state.loss, shape ().
    Logs:   nothing; Metrics logs the loss.
    Syncs:  once per run and phase, on the first batch with class indices, to check their range.
    Raises: TypeError for a class instead of an instance; DataError for targets or weights that do
        not fit, or a loss that is no scalar; ConfigError for sample weights with a reduced loss.

    Example:
        ```python
        import torch
        from fitkit import TorchLoss

        loss = TorchLoss(torch.nn.CrossEntropyLoss())
        ```
    """

    def __init__(self, loss: Callable[..., Any]) -> None:
        super().__init__()
        given: Any = loss
        if isinstance(given, type) or not callable(given):
            name = given.__name__ if isinstance(given, type) else brief(given)
            raise TypeError(
                f"TorchLoss got {name}, expected a loss module or a function\n"
                "Pass an instance: torch.nn.CrossEntropyLoss()."
            )
        self._loss = loss
        self._kind = kind_of(loss)

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
        loss = self._loss(outputs, targets)
        if weight is not None and isinstance(loss, Tensor):
            return _weighted(loss, weight)
        if isinstance(self._loss, nn.Module) and getattr(self._loss, "reduction", "") == "none":
            return loss.mean()
        return loss


def _weighted(loss: Tensor, weight: Tensor) -> Tensor:
    if loss.dim() == 0:
        raise ConfigError(
            "the batch has sample weights, but the loss is already reduced to one number\n"
            'Give a loss per sample: for example torch.nn.CrossEntropyLoss(reduction="none").'
        )
    per_sample = loss.flatten(1).mean(1) if loss.dim() > 1 else loss
    if weight.shape not in (per_sample.shape, (*per_sample.shape, 1)):  # (batch, 1) as Keras takes
        raise DataError(
            f"the sample weights are {describe(weight)}, expected ({len(loss)},)\n"
            "Give one weight per sample, for example weights.flatten() or weights.mean(1)."
        )
    return (per_sample * weight.reshape(per_sample.shape)).mean()
