"""The stack of a Keras model that was compiled, chosen by what the model at hand overrides."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Self, final

from fitkit.errors import ConfigError
from fitkit.interop import is_keras, overrides
from fitkit.loop.callback import Callback, Stack
from fitkit.loop.events import Phase
from fitkit.passes import CompiledMetrics, CompiledRun, TrainMode, Validate
from fitkit.step import (
    Backward,
    CompiledLoss,
    Forward,
    KerasApply,
    PredictStep,
    TestStep,
    TrainStep,
    ZeroGrad,
)

if TYPE_CHECKING:
    from fitkit.loop.fit_loop import FitLoop

__all__ = ["compiled"]

_OWN_STEPS: dict[Phase, tuple[str, type[Callback]]] = {
    Phase.TRAIN: ("train_step", TrainStep),
    Phase.VAL: ("test_step", TestStep),
    Phase.PREDICT: ("predict_step", PredictStep),
}
_FUNCTIONS = ("make_train_function", "make_test_function", "make_predict_function")


def compiled(*, validate: int | str = "1 epoch") -> Stack:
    """Return the stack for a Keras model on which `model.compile(...)` was called.

    It trains as `model.fit` does, with the loss, loss weights, metrics, weighted metrics and
    optimizer of `compile`, and with whatever `compute_loss` and `compute_metrics` the model has.
    Attached to a loop, it becomes TrainMode, ZeroGrad, Forward, CompiledLoss, Backward, KerasApply,
    CompiledMetrics, Validate; where the class overrides `train_step`, `test_step` or
    `predict_step`, these become TrainStep, TestStep, PredictStep. `print(loop)` shows which.

    Args:
        validate: How often to validate: "1 epoch", "500 updates" or 500, "10 minutes".

    Raises:
        TypeError: When attached to a loop whose model is no Keras model.
        ConfigError: When the model was not compiled, or has a `train_function` of its own.

    Example:
        ```python
        import keras
        from fitkit import FitLoop, TensorLoader, compiled

        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        model.compile(optimizer="adam", loss="mse", metrics=["mae"])
        batches = TensorLoader(keras.random.normal((64, 4)), keras.random.normal((64, 1)))
        loop = FitLoop(model, batches, callbacks=compiled())
        assert "mae" in loop.fit(epochs=1)
        ```
    """
    return _Compiled(validate)


@final
class _Compiled(Stack):
    """Chooses its callbacks when it is attached; there is nothing in it to be spread."""

    validate: int | str

    def __new__(cls, validate: int | str) -> Self:
        stack = super().__new__(cls)
        stack.validate = validate
        return stack

    def __iter__(self) -> Any:
        raise ConfigError(
            "compiled() was spread or iterated, but what is in it depends on the model\n"
            "Attach it as it is: loop.attach(compiled())."
        )

    def expand(self, loop: "FitLoop") -> Iterable[Callback]:
        """Return the callbacks for the model of the loop."""
        model: Any = loop.model
        _check(model)
        steps = {
            phase: step for phase, (method, step) in _OWN_STEPS.items() if overrides(model, method)
        }
        own: list[Callback] = [step() for step in steps.values()]
        left = frozenset(Phase) - frozenset(steps)
        return [CompiledRun(), TrainMode(), *own, *_actions(model, left), Validate(self.validate)]


def _actions(model: Any, phases: frozenset[Phase]) -> Iterable[Callback]:
    """Yield the actions of the phases for which the model has no step of its own."""
    trains = Phase.TRAIN in phases and model.optimizer is not None
    if trains:
        yield ZeroGrad()
    if phases:
        yield _within(Forward(like_fit=True), phases)
        yield _within(CompiledLoss(), phases)
    if trains:
        yield Backward()
        yield KerasApply(model.optimizer)
    if phases:
        yield _within(CompiledMetrics(), phases)


def _within(callback: Callback, phases: frozenset[Phase]) -> Callback:
    callback.phases &= phases
    return callback


def _check(model: Any) -> None:
    if not is_keras(model, "Model"):
        raise TypeError(
            f"compiled() got the model {type(model).__name__}, expected a keras.Model\n"
            "Use supervised(loss=, optimizer=, metrics=) for a torch module."
        )
    if not model.compiled:
        raise ConfigError(
            f"the Keras model '{model.name}' is not compiled, compiled() takes all from there\n"
            'Call model.compile(optimizer="adam", loss="mse") first, or use supervised(...).'
        )
    own = [name for name in _FUNCTIONS if overrides(model, name)]
    if own:
        raise ConfigError(
            f"{type(model).__name__} overrides {own[0]}, which a loop does not call\n"
            f"Override {own[0].split('_')[1]}_step instead: it is called with each batch."
        )
