"""APPLY, with a Keras optimizer."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast, final

import torch
from torch import nn

from fitkit.errors import ConfigError, brief
from fitkit.interop import KerasOptimizer, is_keras, keras, optimizer_variables
from fitkit.loop.callback import TRAIN_ONLY, Callback
from fitkit.loop.state import State
from fitkit.optimizer_state import load_optimizer, optimizer_state
from fitkit.step.by_name import by_name
from fitkit.step.weights import Weights

if TYPE_CHECKING:
    from fitkit.loop.fit_loop import FitLoop

__all__ = ["KerasApply"]


@final
class KerasApply(Callback):
    """Fill APPLY: one update by a Keras optimizer, of a Keras model or of a torch module.

    Args:
        optimizer: A `keras.optimizers.Optimizer` or its name.
        model: The part of the loop's model that it updates, where several optimizers share the
            loop's model, one per `Turn`; default is all of it.

    Reads:  the gradients, each shaped like its weight.
    Writes: the weights that are trainable now; state.grad_scale, shape (), if the optimizer scales
        the loss (`LossScaleOptimizer`, `loss_scale_factor`): gradients are scaled until APPLY then.
    Logs:   lr, the learning rate after the pass; with `model`, lr_<name of that model>.
    Syncs:  once per pass, to read the learning rate; per step never by itself (Keras's dynamic loss
        scaling, its own gradient accumulation, SGD, Adadelta and Nadam do, see docs/syncs.md).
    Raises: TypeError if it is no Keras optimizer; ConfigError if it was built for other variables,
        or if `model` is no part of the loop's model.

    Example:
        ```python
        import keras
        from fitkit import KerasApply

        apply = KerasApply(keras.optimizers.Adam(1e-3))
        ```
    """

    phases = TRAIN_ONLY

    def __init__(self, optimizer: Any, *, model: nn.Module | None = None) -> None:
        if isinstance(optimizer, str):
            optimizer = by_name("optimizer", keras().optimizers, optimizer)
        if not is_keras(optimizer, "optimizers.Optimizer"):
            kind = (
                f"the class {optimizer.__name__}"
                if isinstance(optimizer, type)
                else brief(optimizer)
            )
            raise TypeError(
                f"KerasApply got {kind}, expected a keras.optimizers.Optimizer instance\n"
                "Pass an instance, keras.optimizers.Adam(); TorchStep is for torch optimizers."
            )
        self.optimizer: KerasOptimizer = optimizer
        self._part = model
        self._weights = Weights(optimizer)
        self._is_dynamic = is_keras(optimizer, "optimizers.LossScaleOptimizer")

    def attach(self, loop: "FitLoop") -> None:
        """Keep the model."""
        self._model = loop.model

    def on_pass_begin(self, state: State) -> None:
        """List the weights."""
        if self._part is not None:
            _check_part(self._part, state.model)
        self._weights.track(state.model if self._part is None else self._part)
        self._check_known(self._weights)

    def build_optimizer(self) -> None:
        """Make the slots of all weights that are trainable now, also for those frozen later."""
        if not self.optimizer.built:
            cast(Any, self.optimizer).build(self._weights.variables)

    def on_loss_ready(self, state: State) -> None:
        """Have the gradients scaled if the optimizer divides them by a scale."""
        if self._is_dynamic or self.optimizer.loss_scale_factor is not None:
            before = torch.ones_like(state.loss) if state.grad_scale is None else state.grad_scale
            state.grad_scale = self.optimizer.scale_loss(before).to(state.loss.dtype)

    def on_apply(self, state: State) -> None:
        """Update the weights."""
        self._weights.refresh()
        gradients = [tensor.grad for tensor in self._weights.tensors]
        self.optimizer.apply(gradients, self._weights.variables)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the optimizer."""
        return {"optimizer": optimizer_state(self.optimizer)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the optimizer; one that was not built yet is built."""
        self._weights.track(self._model if self._part is None else self._part)
        load_optimizer(self.optimizer, state["optimizer"], self._weights.variables)

    def on_pass_end(self, state: State) -> None:
        """Log the learning rate."""
        if not is_keras(self.optimizer, "optimizers.MultiOptimizer"):  # it has several
            rate: Any = self.optimizer.learning_rate
            state.logs[self._rate_name] = float(rate)  # sync: once per pass

    @property
    def _rate_name(self) -> str:
        if self._part is None:
            return "lr"
        return f"lr_{getattr(self._part, 'name', None) or type(self._part).__name__}"

    def _check_known(self, weights: Weights) -> None:
        known = set(map(id, optimizer_variables(self.optimizer)))
        unknown = [v.path for v in weights.variables if id(v) not in known]
        if unknown and self.optimizer.built:
            raise ConfigError(
                f"the optimizer was built for other variables: {len(unknown)} of the model's "
                f"{len(weights.variables)} are unknown to it\n"
                f"The first one is '{unknown[0]}'.\n"
                "Make a new optimizer; one belongs to one model, and to what was trainable then."
            )


def _check_part(part: nn.Module, model: nn.Module) -> None:
    held = set(map(id, model.parameters()))
    strange = [name for name, parameter in part.named_parameters() if id(parameter) not in held]
    if strange:
        raise ConfigError(
            f"KerasApply(model=...) updates {len(strange)} parameters that are not of the loop's "
            f"model\nThe first one is '{strange[0]}'.\n"
            "Give the loop a model that holds all networks: "
            "FitLoop(torch.nn.ModuleList([generator, discriminator]), ...)."
        )
