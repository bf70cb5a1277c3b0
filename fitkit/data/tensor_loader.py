"""Batches of arrays in memory: one `index_select` per array and batch."""

from collections.abc import Iterator
from typing import Self

import numpy as np
import torch
from torch import Tensor

from fitkit.data.gather import Gather, ids_of
from fitkit.data.placement import canonical, fits, place
from fitkit.data.structure import Structure, leaves, to_tensors
from fitkit.errors import ConfigError

_BLOCK = 256  # batches


class TensorLoader:
    """Yield batches of in-memory arrays, resident on the device of the loop when they fit.

    The order is a pure function of (seed, epoch) and touches no global random state, so a resumed
    run sees the same batches. A loop sets the epoch; outside of one, each `iter()` is the next.

    Args:
        *arrays: one per item of the batch, such as x, y, sample_weight: a tensor or numpy array
            `(num_samples, ...)`, or a dict, list or tuple of them. Arrays are not copied while
            they stay on the host.
        batch_size: samples per batch.
        shuffle: draw a new order for every epoch.
        seed: of the order, at least 0.
        device: where the arrays lie, whatever their size. By default that is the device of the
            loop, if half of its free memory holds them, and otherwise where they were given.
        drop_last: leave out a last batch that is smaller than the others.

    Raises:
        ConfigError: no arrays, arrays of different lengths, or an option out of range.
        DataError: an array that does not hold numbers.

    Example:
        ```python
        import torch
        from fitkit import TensorLoader

        loader = TensorLoader(torch.randn(100, 8), torch.arange(100), batch_size=32, shuffle=True)
        for x, y in loader:
            print(x.shape, y.shape)
        ```
    """

    def __init__(
        self,
        *arrays: Structure,
        batch_size: int = 32,
        shuffle: bool = False,
        seed: int = 0,
        device: torch.device | str | None = None,
        drop_last: bool = False,
    ) -> None:
        self.batch_size = _checked("batch_size", batch_size, at_least=1)
        self.seed = _checked("seed", seed, at_least=0)
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.num_samples, self._arrays = _same_length(to_tensors(arrays, "arrays"))
        self._epoch = 0
        self._epoch_is_set = False
        self._device_is_set = device is not None
        first = next(leaf for _, leaf in leaves(self._arrays))
        self._device: torch.device = first.device if device is None else canonical(device)
        self._asked: torch.device = (
            self._device
        )  # the last answer of `fits` holds until another device asks
        self._arrays = place(self._arrays, self._device)

    def __len__(self) -> int:
        """Number of batches in an epoch."""
        full, rest = divmod(self.num_samples, self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[Structure]:
        """Yield tuples of tensors `(batch, ...)`, on the device where the arrays lie."""
        return (gather.take() for gather in self.gathers())

    def gathers(self, skip: int = 0) -> Iterator[Gather]:
        """Yield the same batches as iteration does but the first ones, gathered when read."""
        order = self._order().to(self._device)
        rows = order[skip * self.batch_size : len(self) * self.batch_size]
        arrays, ids = self._arrays, ids_of(self._arrays)
        return (Gather(arrays, index, ids) for index in _split(rows, self.batch_size))

    @property
    def device(self) -> torch.device:
        """Where the arrays lie."""
        return self._device

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch (0-based) of every later iteration, until it is set again."""
        self._epoch = _checked("epoch", epoch, at_least=0)
        self._epoch_is_set = True

    def to(self, device: torch.device | str) -> Self:
        """Move the arrays to the device if they fit there and `device=` was not given."""
        device = canonical(device)
        if not self._device_is_set and device != self._asked:
            self._asked = device
            if fits(self._arrays, device):
                self._arrays = place(self._arrays, device)
                self._device = device
        return self

    def _order(self) -> Tensor:
        epoch = self._epoch
        if not self._epoch_is_set:
            self._epoch += 1
        if not self.shuffle:
            return torch.arange(self.num_samples)
        # hashed, so that (seed 0, epoch 1) and (seed 1, epoch 0) have nothing in common
        state = np.random.SeedSequence([self.seed, epoch]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(state[0]) >> 1)
        return torch.randperm(self.num_samples, generator=generator)


def _split(rows: Tensor, size: int) -> Iterator[Tensor]:
    """Give `size` rows at a time; one call of torch splits those of many batches."""
    for at in range(0, len(rows), _BLOCK * size):
        yield from torch.split(rows[at : at + _BLOCK * size], size)


def _checked(name: str, value: int, *, at_least: int) -> int:
    if type(value) is int and value >= at_least:
        return value
    raise ConfigError(
        f"{name}={value!r} ({type(value).__name__}), expected an int of at least {at_least}\n"
        f"Give TensorLoader a whole number {name} >= {at_least}."
    )


def _same_length(arrays: Structure) -> tuple[int, Structure]:
    """Give the common first dimension of the arrays, and the arrays."""
    shapes = {path: list(leaf.shape) for path, leaf in leaves(arrays, "arrays")}
    lengths = {tuple(shape[:1]) for shape in shapes.values()}
    if len(lengths) == 1 and () not in lengths:
        return lengths.pop()[0], arrays
    found = ", ".join(f"{path}: {shape}" for path, shape in shapes.items())
    hint = (
        "Give rows as one array, np.asarray(rows): a list is a structure of several."
        if () in lengths
        else "Give arrays with the same number of rows, in the order of the batch: x, y, "
        "sample_weight."
    )
    raise ConfigError(
        "TensorLoader needs one or more arrays (num_samples, ...) of one length\n"
        f"  shapes: {found or 'no arrays'}\n{hint}"
    )
