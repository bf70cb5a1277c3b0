"""Which checkpoints to keep, and which way a metric is better."""

import math
from collections.abc import Mapping
from typing import Any, Literal

from fitkit.errors import ConfigError, brief

__all__ = ["Mode", "mode_of", "to_delete"]

Mode = Literal["min", "max"]

_LOW = ("loss", "error", "mae", "mse", "rmse", "mape", "perplexity", "divergence")
_HIGH = ("accuracy", "acc", "auc", "precision", "recall", "f1", "iou", "score", "dice", "top")


def mode_of(monitor: str, mode: object) -> Mode:
    """Return which way `monitor` is better: as said, or as its name tells.

    Raises:
        ConfigError: If `mode` is neither "min" nor "max", or the name does not tell.
    """
    if mode in ("min", "max"):
        return mode
    if mode is not None:
        raise ConfigError(
            f'mode={brief(mode)} for the monitor \'{monitor}\', expected "min" or "max"\n'
            'Say which is better: mode="min" for a loss, mode="max" for an accuracy.'
        )
    name = monitor.lower()
    low, high = any(part in name for part in _LOW), any(part in name for part in _HIGH)
    if low == high:
        raise ConfigError(
            f"monitor='{monitor}': the name does not tell whether less or more is better\n"
            'Say it: mode="min" or mode="max".'
        )
    return "min" if low else "max"


def to_delete(
    metas: Mapping[str, Mapping[str, Any]],
    keep_last: int | None,
    keep_best: int,
    mode: Mode,
    protected: str | None,
) -> list[str]:
    """Return the names of the checkpoints to delete, oldest first.

    Args:
        metas: What is told of each, oldest first.
        keep_last: So many of the newest stay; None keeps all.
        keep_best: So many with the best monitored value stay as well. NaN is never best; of equal
            ones the older is.
        mode: Which way the value is better.
        protected: One that stays in any case.
    """
    if keep_last is None:
        return []
    names = list(metas)
    values: dict[str, Any] = {name: metas[name].get("monitored") for name in names}
    known = [n for n in names if values[n] is not None and not math.isnan(values[n])]
    best = sorted(known, key=lambda name: values[name], reverse=mode == "max")  # stable
    keep = {*names[-keep_last:], *best[:keep_best], protected}
    return [name for name in names if name not in keep]
