"""Keras metrics and torchmetrics behind one face."""

import re
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from fitkit.errors import ConfigError, DeviceError, brief
from fitkit.interop import KerasMetric, is_keras
from fitkit.optimizer_state import load_variables, variables_of

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


class _TorchMetrics:
    """A `torchmetrics.Metric`, known by its methods: the package is not imported."""

    def __init__(self, name: str, metric: Any) -> None:
        self.name = name
        self.metric = metric

    def update(self, targets: Any, outputs: Any, weight: Tensor | None) -> None:
        """Add a batch; the state tensors stay the same objects, as a recorded step needs it.

        torchmetrics rebinds its state (`self.total = self.total + x`); what was bound anew is
        copied into the tensor that was there before.
        """
        metric = self.metric
        before = {name: getattr(metric, name) for name in metric._defaults}
        try:
            metric.update(outputs, targets)
            for name, old in before.items():
                new = getattr(metric, name)
                if isinstance(old, Tensor) and new is not old and _is_like(new, old):
                    old.copy_(new)
                else:
                    before[name] = new
        finally:
            for name, tensor in before.items():
                setattr(metric, name, tensor)

    def result(self) -> Any:
        # A replayed update does not pass through Python, where torchmetrics counts and caches.
        self.metric._update_count = max(1, self.metric._update_count)
        self.metric._computed = None
        return self.metric.compute()

    def reset(self) -> None:
        """Reset in place: `metric.reset()` would bind new tensors."""
        before = {name: getattr(self.metric, name) for name in self.metric._defaults}
        self.metric.reset()
        for name, old in before.items():
            new = getattr(self.metric, name)
            if isinstance(old, Tensor) and old.device == new.device and _fits(new, old):
                setattr(self.metric, name, old.copy_(new))

    @property
    def _is_wrapper(self) -> bool:
        """Whether it keeps its values in metrics of its own, such as MinMaxMetric."""
        return any(hasattr(child, "_defaults") for child in self.metric.children())

    def snapshot(self) -> dict[str, Any]:
        if self._is_wrapper:
            return deepcopy(cast("dict[str, Any]", vars(self.metric)))
        return {name: _copied(value) for name, value in self.metric.metric_state.items()}

    def restore(self, snapshot: dict[str, Any]) -> None:
        if self._is_wrapper:
            cast("dict[str, Any]", vars(self.metric)).update(snapshot)
            return
        for name, value in snapshot.items():
            old = getattr(self.metric, name)
            setattr(self.metric, name, old.copy_(value) if isinstance(value, Tensor) else value)

    def saved(self) -> dict[str, Any]:
        """Return the states of the metric and of those within it, by path."""
        return {
            path: {**each.metric_state, "_update_count": each._update_count}
            for path, each in self.metric.named_modules()
            if hasattr(each, "_defaults")
        }

    def load(self, saved: dict[str, Any]) -> bool:
        for path, values in saved.items():
            metric = self.metric.get_submodule(path)
            for name, value in values.items():
                old = getattr(metric, name)
                like = (
                    isinstance(value, Tensor) and isinstance(old, Tensor) and _is_like(value, old)
                )
                setattr(metric, name, old.copy_(value) if like else _to(value, metric.device))
        return True

    @property
    def state_ids(self) -> tuple[int, ...]:
        # Some grow at the first batch, from one sum to one per output.
        return tuple([id(getattr(self.metric, name)) for name in self.metric._defaults])

    def check_device(self, device: torch.device) -> None:
        self.metric.to(device)


def _is_like(new: Tensor, old: Tensor) -> bool:
    """Return whether `new` can be kept in `old`: a sum of ints may have become one of floats."""
    return new.shape == old.shape and new.dtype == old.dtype


def _fits(value: Tensor, old: Tensor) -> bool:
    """Return whether a default can be written over a state that has grown."""
    return value.shape == old.shape or (value.dim() == 0 and value.dtype == old.dtype)


def _to(value: Any, device: torch.device) -> Any:
    if isinstance(value, list):
        return [_to(item, device) for item in cast("list[Any]", value)]
    return value.to(device) if isinstance(value, Tensor) else value


def _copied(value: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
    return [item.clone() for item in value] if isinstance(value, list) else value.clone()


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
        return _TorchMetrics(name or _snake_case(type(metric).__name__), metric)
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
