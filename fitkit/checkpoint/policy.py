"""Which checkpoints to keep."""

import math
from collections.abc import Mapping
from typing import Any

from fitkit.loop.better import Mode

__all__ = ["ranked", "to_delete"]


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
        keep_best: So many with the best monitored value stay as well.
        mode: Which way the value is better.
        protected: One that stays in any case.
    """
    if keep_last is None:
        return []
    names = list(metas)
    keep = {*names[-keep_last:], *ranked(metas, mode)[:keep_best], protected}
    return [name for name in names if name not in keep]


def ranked(metas: Mapping[str, Mapping[str, Any]], mode: Mode) -> list[str]:
    """Return the names of those with a monitored value, the best first.

    NaN is never best, and so is left out; of equal ones the older comes first.
    """
    values: dict[str, Any] = {name: meta.get("monitored") for name, meta in metas.items()}
    known = [n for n, value in values.items() if value is not None and not math.isnan(value)]
    return sorted(known, key=lambda name: values[name], reverse=mode == "max")  # stable
