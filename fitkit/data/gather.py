"""A batch that is not gathered yet."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fitkit.data.structure import Structure, map_leaves


@dataclass(slots=True, eq=False)
class Gather:
    """Rows of resident arrays, selected when somebody reads them.

    Nothing is paid until `take()`, and a recorded step can select inside its program instead.
    Every call of `take()` selects anew; whoever reads more than once keeps the result.

    Attributes:
        arrays: tensors `(num_samples, ...)` in the structure of the batch, on one device.
        index: int64 `(batch,)`, on the device of the arrays.
    """

    arrays: Structure
    index: Tensor

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
