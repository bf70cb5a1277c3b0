"""What TrainStep, TestStep and PredictStep share: the batch as data, the logs of a step."""

from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor

from fitkit.data import default_unpack
from fitkit.data.structure import leaves
from fitkit.errors import ConfigError, DataError
from fitkit.loop.events import Phase
from fitkit.loop.state import State

__all__ = ["batch_data", "check_step", "publish_logs"]


def check_step(callback: object, state: State, method: str) -> None:
    """Check that the model has the method, and that nobody needs what it keeps to itself.

    Raises:
        ConfigError: If it is not so.
    """
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


def batch_data(state: State) -> Any:
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


def publish_logs(state: State, logs: Any, method: str) -> None:
    """Write what the method returned to the state.

    Raises:
        DataError: If it is no dict.
    """
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
