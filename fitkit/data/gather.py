"""A batch that is not gathered yet."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fitkit.data.structure import Structure, leaves, map_leaves


@dataclass(slots=True, eq=False)
class Gather:
    """Rows of resident arrays, selected when somebody reads them.

    Nothing is paid until `take()`, and a recorded step can select inside its program instead.
    Every call of `take()` selects anew; whoever reads more than once keeps the result.

    Attributes:
        arrays: tensors `(num_samples, ...)` in the structure of the batch, on one device.
        index: int64 `(batch,)`, on the device of the arrays.
        ids: Place and id of each array; a loader that gathers from the same ones finds them once.
    """

    arrays: Structure
    index: Tensor
    ids: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        """Find the ids that were not given."""
        self.ids = self.ids or ids_of(self.arrays)

    def take(self) -> Structure:
        """Give the batch: tensors `(batch, ...)` on the device of the arrays; no sync."""
        index = self.index
        return map_leaves(lambda array: torch.index_select(array, 0, index), self.arrays)

    @property
    def batch_size(self) -> int:
        """Number of samples in the batch."""
        return self.index.shape[0]

    @property
    def device(self) -> torch.device:
        """Where the arrays lie and the batch will be."""
        return self.index.device


def ids_of(arrays: Structure | list[Any]) -> tuple[tuple[str, int], ...]:
    """Give the place and the id of each tensor in a structure."""
    return tuple([(place, id(array)) for place, array in leaves(arrays)])
