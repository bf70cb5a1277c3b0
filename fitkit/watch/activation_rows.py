"""What layers gave, row by row, as a few tensors: thousands of rows fit into a checkpoint."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

__all__ = ["ActivationRow", "packed", "unpacked"]

ActivationRow = tuple[int, dict[str, tuple[float, float, float]]]


def packed(rows: Sequence[ActivationRow]) -> dict[str, Any]:
    """Return the rows as state to be saved, on the host; nothing where there are none."""
    if not rows:
        return {}
    kinds = list(dict.fromkeys(tuple(row) for _, row in rows))  # most steps run the same layers
    figures = [each for _, row in rows for each in row.values()]
    return {
        "layers": [list(kind) for kind in kinds],
        "at": torch.tensor([(at, kinds.index(tuple(row))) for at, row in rows]),
        "figures": torch.tensor(figures, dtype=torch.float32).reshape(-1, 3),
    }


def unpacked(state: Mapping[str, Any]) -> list[ActivationRow]:
    """Return the rows of what `packed` has returned."""
    if not state:
        return []
    figures = (tuple(each) for each in state["figures"].tolist())  # sync: never, CPU
    return [
        (at, {name: next(figures) for name in state["layers"][kind]})
        for at, kind in state["at"].tolist()  # sync: never, CPU
    ]
