"""The one thing a pass iterates: batches on the device, whatever the loader is."""

from collections.abc import Callable, Iterator
from time import perf_counter, sleep
from typing import Any

import torch

from fitkit.data.check import empty_error
from fitkit.data.gather import Gather
from fitkit.data.placement import canonical, place
from fitkit.data.position import open_at, opening_of, put_back
from fitkit.data.prefetch import CudaCopier, Prefetch
from fitkit.data.source import Loader, is_resident, move, open_source, set_epoch
from fitkit.data.structure import Structure, to_tensors


class Feed:
    """Iterate once over a loader.

    An item is a `Gather` where the arrays lie on the device, else a structure of tensors on it.
    On CUDA, host batches are pinned and copied one ahead on a side stream; elsewhere no batch is
    fetched before it is asked for.

    Args:
        loader: anything that yields batches.
        device: where the batches are wanted.
        epoch: 0-based, given to the loader and its samplers where they have `set_epoch`.
        name: of the loader, for messages.
        ends_on_error: asked where the loader raises: whether that is the end of the pass.

    Attributes:
        wait_s: seconds spent waiting for batches so far.
        num_fetched: batches given so far, and those skipped.
        opening: what the order of the pass follows from, see `opening_of`; {} before it begins.

    Raises:
        DataError: while iterating: the loader is empty or used up, or a batch does not hold
            numbers. Errors of the loader itself pass through, with a note naming the batch.
    """

    def __init__(
        self,
        loader: Loader,
        device: torch.device | str,
        epoch: int = 0,
        *,
        name: str = "loader",
        ends_on_error: Callable[[], bool] = lambda: False,
    ) -> None:
        self.loader = loader
        self.device = canonical(device)
        self.name = name
        self._ends_on_error = ends_on_error
        self.wait_s = 0.0
        self.num_fetched = 0
        self.opening: dict[str, Any] = {}
        self._source: Iterator[Gather | Structure] | None = None
        move(loader, self.device)
        set_epoch(loader, epoch)

    def start_at(self, num_batches: int, opening: dict[str, Any], state: Any = None) -> None:
        """Begin the pass behind its first batches; see `open_at`."""
        self._source = self._ready(open_at(self.loader, num_batches, opening, state))
        self.num_fetched, self.opening = num_batches, opening

    def __iter__(self) -> Iterator[Gather | Structure]:
        """Yield the batches of one pass."""
        source = self._source
        while True:
            begin = perf_counter()
            try:
                if source is None:
                    source = self._open()
                item = next(source)
            except StopIteration:
                break
            except Exception as error:
                error = _told_by_torch(error)
                error.add_note(f"while fetching batch {self.num_fetched} of {self.name}")
                if self._ends_on_error():
                    self._forget_opening()
                    return
                raise error
            finally:
                self.wait_s += perf_counter() - begin
            self.num_fetched += 1
            yield item
        if self.num_fetched == 0:
            raise empty_error(self.loader, self.name)

    def _forget_opening(self) -> None:
        """Let a pass that has given no batch have drawn no random numbers: it will begin anew."""
        if self.num_fetched == 0 and self.opening:
            put_back(self.loader, self.opening)

    def _open(self) -> Iterator[Gather | Structure]:
        self.opening = opening_of(self.loader)
        return self._ready(open_source(self.loader))

    def _ready(self, source: Iterator[Gather | Structure]) -> Iterator[Gather | Structure]:
        if self.device.type != "cuda" or is_resident(self.loader, self.device):
            return (self._placed(item) for item in source)
        return Prefetch((_host(item) for item in source), CudaCopier(self.device))

    def _placed(self, item: Gather | Structure) -> Gather | Structure:
        if isinstance(item, Gather) and item.device == self.device:
            return item
        return place(_host(item), self.device)


def _told_by_torch(error: Exception) -> Exception:
    """Give what ended a worker, if that is why it can no longer be read.

    torch says it where SIGCHLD arrives, which may be after the pipe of the worker has broken.
    """
    if not isinstance(error, ConnectionError | EOFError):
        return error
    try:
        sleep(1.0)
    except RuntimeError as told:
        return told
    return error


def _host(item: Gather | Structure) -> Structure:
    """Give the tensors of a batch, where they lie."""
    return item.take() if isinstance(item, Gather) else to_tensors(item)
