"""Two who set the same number: each would undo the other, so the second one is refused."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from fitkit.errors import ConfigError
from fitkit.interop import innermost, is_keras
from fitkit.tune.keras_callbacks import KerasCallbacks

if TYPE_CHECKING:
    from fitkit.loop.fit_loop import FitLoop

__all__ = ["check_alone"]

_OF_KERAS = ("callbacks.ReduceLROnPlateau", "callbacks.LearningRateScheduler")


def check_alone(loop: "FitLoop", owner: str, optimizer: Any, names: set[str]) -> None:
    """Check that only one `owner` sets these numbers of an optimizer.

    Args:
        loop: The loop whose callbacks may set them.
        owner: How the callback that asks is called in messages.
        optimizer: Whose numbers they are.
        names: "lr", "weight_decay", "momentum", ...

    Raises:
        ConfigError: If another one sets one of them; names both.
    """
    for name in sorted(names):
        others = [*_schedules(loop, optimizer, name), *_of_keras(loop, optimizer, name)]
        others = [other for other in others if other != owner] or (
            [owner] if others.count(owner) > 1 else []
        )
        if others:
            raise ConfigError(
                f"{name} of {type(optimizer).__name__} is set by two: {owner} and {others[0]}\n"
                "Each would undo what the other one sets. Keep one of them."
            )


def _schedules(loop: "FitLoop", optimizer: Any, name: str) -> Iterator[str]:
    for callback in loop.callbacks:
        controls: Any = getattr(callback, "controls", None)
        if controls is not None and name in controls(loop).get(id(optimizer), ()):
            yield str(callback)


def _of_keras(loop: "FitLoop", optimizer: Any, name: str) -> Iterator[str]:
    if name != "lr" or not is_keras(optimizer, "optimizers.Optimizer"):
        return
    rate = innermost(optimizer)._learning_rate
    if callable(rate) and not is_keras(rate, "Variable"):
        yield f"{getattr(rate, '__name__', type(rate).__name__)}, its own learning_rate"
    for callback in loop.callbacks:
        if isinstance(callback, KerasCallbacks):
            held = [
                each for each in callback.callbacks if any(is_keras(each, k) for k in _OF_KERAS)
            ]
            yield from (f"{type(each).__name__} in KerasCallbacks" for each in held)
