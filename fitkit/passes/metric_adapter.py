"""Keras metrics and torchmetrics behind one face."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from fitkit.errors import ConfigError, DeviceError, brief
from fitkit.interop import KerasMetric, is_keras
from fitkit.optimizer_state import load_variables, variables_of
from fitkit.passes.torchmetrics_adapter import TorchmetricsAdapter

__all__ = ["MetricAdapter", "adapt_all", "scalars"]


class MetricAdapter(Protocol):
    """What `Metrics` asks of a metric."""

    name: str

    def update(self, targets: Any, outputs: Any, weight: Tensor | None) -> None:
        """Add a batch. Syncs: never by itself."""
        ...

    def result(self) -> Any:
        """Return the value so far, on the device."""
        ...

    def reset(self) -> None:
        """Forget all batches."""
        ...

    def snapshot(self) -> Any:
        """Return a copy of the state."""
        ...

    def restore(self, snapshot: Any) -> None:
        """Go back to a copy of the state."""
        ...

    def saved(self) -> Any:
        """Return the state, for a checkpoint."""
        ...

    def load(self, saved: Any) -> bool:
        """Go back to a saved state; return False if the metric has yet to be built for it."""
        ...

    def check_device(self, device: torch.device) -> None:
        """Move the state to `device`, or raise DeviceError."""
        ...

    @property
    def state_ids(self) -> tuple[int, ...]:
        """The ids of the state tensors, if an update may bind others."""
        ...


class _Keras:
    def __init__(self, name: str, metric: KerasMetric) -> None:
        self.name = name
        self.metric = metric

    def update(self, targets: Any, outputs: Any, weight: Tensor | None) -> None:
        self.metric.update_state(targets, outputs, sample_weight=weight)

    def result(self) -> Any:
        return self.metric.result()

    def reset(self) -> None:
        self.metric.reset_state()

    def snapshot(self) -> list[Tensor]:
        return [variable.value.detach().clone() for variable in self.metric.variables]

    def restore(self, snapshot: list[Tensor]) -> None:
        if len(snapshot) != len(self.metric.variables):
            self.metric.reset_state()  # an inner pass has built it, so nothing was counted before
            return
        with torch.no_grad():
            for variable, value in zip(self.metric.variables, snapshot, strict=True):
                variable.value.copy_(value)

    def saved(self) -> list[Tensor]:
        return variables_of(self.metric.variables)

    def load(self, saved: list[Tensor]) -> bool:
        if len(saved) > len(self.metric.variables):
            return False
        load_variables(self.metric.variables, saved, f"the metric '{self.name}'")
        return True

    @property
    def state_ids(self) -> tuple[int, ...]:
        return ()

    def check_device(self, device: torch.device) -> None:
        for variable in self.metric.variables:
            found = variable.value.device
            if found.type != device.type:
                raise DeviceError(
                    f"the state of metric '{self.name}' is on {found}, the loop runs on {device}\n"
                    f'Set os.environ["KERAS_TORCH_DEVICE"] = "{device.type}" before importing '
                    "keras."
                )


def adapt_all(metrics: Iterable[Any] | Mapping[str, Any]) -> list[MetricAdapter]:
    """Return an adapter per metric.

    Raises:
        TypeError: If one is a class, a name, or nothing with the methods of a metric.
        ConfigError: If two have one name, or one is called "loss".
    """
    if isinstance(metrics, Mapping):
        named = cast(Mapping[str, Any], metrics)
        adapted = [each for name, m in named.items() for each in _adapt_each(m, name)]
    else:
        _check_listed(metrics)
        adapted = [each for metric in metrics for each in _adapt_each(metric, None)]
    names = [metric.name for metric in adapted]
    for index, name in enumerate(names):
        if name == "loss" or name in names[:index]:
            owner = "the loss itself" if name == "loss" else f"metrics[{names.index(name)}]"
            raise ConfigError(
                f"metrics[{index}] is named '{name}', as is {owner}\n"
                'Give it another name: metrics={"top1": metric}, or the name= of a Keras metric.'
            )
    return adapted


def _check_listed(metrics: Any) -> None:
    single = (
        isinstance(metrics, str) or hasattr(metrics, "reset") or hasattr(metrics, "reset_state")
    )
    if single or not isinstance(metrics, Iterable):
        raise TypeError(
            f"metrics={brief(metrics)} is no list of metrics, nor a dict by name\n"
            "Put it into a list: metrics=[keras.metrics.SparseCategoricalAccuracy()]."
        )


def _adapt_each(metric: Any, name: str | None) -> list[MetricAdapter]:
    """Return the adapter of a metric, or those of a `torchmetrics.MetricCollection`."""
    if not isinstance(metric, type) and all(hasattr(metric, m) for m in ("items", "metric_state")):
        members = metric.items(copy_state=False)
        return [_adapt(member, f"{name}_{key}" if name else key) for key, member in members]
    return [_adapt(metric, name)]


def _adapt(metric: Any, name: str | None) -> MetricAdapter:
    if is_keras(metric, "metrics.Metric"):
        return _Keras(name or metric.name, metric)
    methods = ("update", "compute", "reset", "metric_state")
    if not isinstance(metric, type) and all(hasattr(metric, method) for method in methods):
        return TorchmetricsAdapter(name or _snake_case(type(metric).__name__), metric)
    kind = f"the class {metric.__name__}" if isinstance(metric, type) else repr(metric)
    not_names = "; names are for model.compile" if isinstance(metric, str) else ""
    raise TypeError(
        f"Metrics got {kind}, expected a keras.metrics.Metric or a torchmetrics.Metric\n"
        f"Pass instances, as metrics=[keras.metrics.SparseCategoricalAccuracy()]{not_names}."
    )


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def scalars(name: str, result: Any) -> Iterable[tuple[str, Tensor]]:
    """Yield the result as named tensors of shape (): a dict by its keys, a vector by its index."""
    if isinstance(result, Mapping):
        for key, value in cast(Mapping[str, Any], result).items():
            yield from scalars(f"{name}_{key}", value)
        return
    if isinstance(result, list | tuple):
        for index, element in enumerate(cast(Sequence[Any], result)):
            yield from scalars(f"{name}_{index}", element)
        return
    if is_keras(result, "Variable"):  # a metric may give its state itself
        result = result.value
    value = torch.as_tensor(result).detach()
    if value.dim() == 0:
        yield name, value
    else:
        for index, element in enumerate(value.flatten()):
            yield f"{name}_{index}", element
