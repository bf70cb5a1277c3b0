"""The first batches of another loader."""

from collections.abc import Iterator
from itertools import islice

from fitkit.data.gather import Gather
from fitkit.data.source import Loader, LoaderWrapper, open_source
from fitkit.data.structure import Structure

__all__ = ["InPlaceOf", "Limited"]


class Limited(LoaderWrapper):
    """Give the first batches of each pass over a loader, and fetch no others.

    Args:
        loader: what a loop takes.
        num_batches: how many.
        keep: keep the batches of the first pass, and give the same ones in every pass.
    """

    def __init__(self, loader: Loader, num_batches: int, *, keep: bool = False) -> None:
        super().__init__(loader)
        self.num_batches = num_batches
        self._keep = keep
        self._kept: list[Gather | Structure] = []

    def read(self) -> Iterator[Gather | Structure]:
        """Begin a pass: give its batches, still to be placed."""
        if self._kept:
            return iter(self._kept)
        first = islice(open_source(self.loader), self.num_batches)
        if not self._keep:
            return first
        self._kept = list(first)
        return iter(self._kept)

    def __len__(self) -> int:
        """Number of batches in a pass; TypeError where the inner loader does not know it."""
        return min(self.num_batches, super().__len__())


class InPlaceOf(LoaderWrapper):
    """Give the batches of one loader where another one stands, of which the run is still one.

    Args:
        loader: what stands there for whoever asks which data a run has.
        given: whose batches come.
    """

    def __init__(self, loader: Loader, given: LoaderWrapper) -> None:
        super().__init__(loader)
        self._given = given

    def read(self) -> Iterator[Gather | Structure]:
        """Begin a pass: give the batches of the other one."""
        return self._given.read()

    def __len__(self) -> int:
        """Number of batches in a pass; TypeError where the other one does not know it."""
        return len(self._given)
