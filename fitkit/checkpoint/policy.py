"""Which checkpoints to keep."""

import math
from collections.abc import Mapping
from typing import Any

from fitkit.loop.better import Mode

__all__ = ["to_delete"]


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
