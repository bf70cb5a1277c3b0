"""Copy batches to the device one ahead of their use."""

from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

import torch

from fitkit.data.structure import Structure, leaves, map_leaves

Ticket = TypeVar("Ticket")


class Copier(Protocol[Ticket]):
    """Something that copies a structure in two steps, so that work fits in between."""

    def start(self, batch: Structure) -> Ticket:
        """Begin the copy."""
        ...

    def finish(self, ticket: Ticket) -> Structure:
        """Give the copy, ready for the stream that asks."""
        ...


class CudaCopier:
    """Copies from pinned memory on a stream of its own; the host never waits.

    Args:
        device: the CUDA device to copy to.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)

    def start(self, batch: Structure) -> tuple[Structure, torch.cuda.Event]:
        """Pin every host tensor and begin its copy on the side stream."""
        with torch.cuda.stream(self.stream):
            copies = map_leaves(self._copy, batch)
            copied = torch.cuda.Event()
            copied.record(self.stream)
            return copies, copied

    def finish(self, ticket: tuple[Structure, torch.cuda.Event]) -> Structure:
        """Make the current stream wait for the copy; no sync."""
        copies, copied = ticket
        stream = torch.cuda.current_stream(self.device)
        stream.wait_event(copied)
        for _, tensor in leaves(copies):
            tensor.record_stream(stream)  # else its memory could be reused while still read
        return copies

    def _copy(self, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.device.type == "cpu" and not tensor.is_pinned():
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)


class Prefetch(Generic[Ticket]):
    """Iterate over batches while the copy of the next one is under way.

    An error of the source is raised in its turn: after the batches that came before it.

    Args:
        source: host batches; read one ahead.
        copier: starts and finishes the copies.
    """

    def __init__(self, source: Iterator[Structure], copier: Copier[Ticket]) -> None:
        self._source = source
        self._copier = copier
        self._next: Ticket | None = None
        self._end: Exception | None = None
        self._started = False

    def __iter__(self) -> "Prefetch[Ticket]":
        """Give itself: it can be read once."""
        return self

    def __next__(self) -> Structure:
        """Give the next batch on the device, after starting the copy of the one after it."""
        if not self._started:
            self._started = True
            self._next = self._start()
        if self._next is None:
            raise self._end or StopIteration
        ticket, self._next = self._next, self._start()
        return self._copier.finish(ticket)

    def _start(self) -> Ticket | None:
        try:
            return self._copier.start(next(self._source))
        except Exception as end:  # StopIteration too: kept until the batch before it is used
            self._end = end
            return None
