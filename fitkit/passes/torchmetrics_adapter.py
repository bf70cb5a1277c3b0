"""What torchmetrics keep, in tensors that stay the same objects: a recorded step adds to these."""

from copy import deepcopy
from typing import Any, cast, final

import torch
from torch import Tensor

__all__ = ["TorchmetricsAdapter"]


@final
class TorchmetricsAdapter:
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
        """Return the value so far, on the device."""
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
        """Return a copy of the state."""
        if self._is_wrapper:
            return deepcopy(cast("dict[str, Any]", vars(self.metric)))
        return {name: _copied(value) for name, value in self.metric.metric_state.items()}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Go back to a copy of the state."""
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
        """Go back to a saved state."""
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
        """The ids of the state tensors: some grow at the first batch, to a sum per output."""
        return tuple([id(getattr(self.metric, name)) for name in self.metric._defaults])

    def check_device(self, device: torch.device) -> None:
        """Move the state there."""
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
