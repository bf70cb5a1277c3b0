"""Writes checkpoints now, or in a thread from a copy."""

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fitkit.data.structure import map_leaves
from fitkit.store import Content

__all__ = ["BackgroundWriter", "Copier"]


class Copier:
    """Copies the state of a run to the host, into the same memory each time.

    New memory would have to be mapped page by page each time. So a copy is valid until the next one
    is taken.
    """

    def __init__(self) -> None:
        self._buffers: list[Tensor] = []
        self._num_used = 0

    def copy(self, content: Content) -> Content:
        """Return a copy that later steps do not change."""
        self._num_used = 0
        copied = Content(
            meta=map_leaves(lambda value: value, content.meta),  # new containers
            model={name: self._copy(tensor) for name, tensor in content.model.items()},
            state=map_leaves(self._copy, content.state),
        )
        del self._buffers[self._num_used :]
        return copied

    def _copy(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        number, self._num_used = self._num_used, self._num_used + 1
        if number == len(self._buffers) or not _is_like(self._buffers[number], value):
            like = torch.empty(value.shape, dtype=value.dtype)
            self._buffers[number : number + 1] = [like]
        return self._buffers[number].copy_(value.detach())  # sync: once per checkpoint and tensor


def _is_like(buffer: Tensor, value: Tensor) -> bool:
    return buffer.shape == value.shape and buffer.dtype == value.dtype


class BackgroundWriter:
    """Runs one job at a time in a thread. What it raises is raised by the next call."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def start(self, job: Callable[[], object]) -> None:
        """Wait for the last job, then run this one."""
        self.wait()
        self._thread = threading.Thread(target=self._run, args=(job,), name="fitkit-checkpoint")
        self._thread.start()

    def check(self) -> None:
        """Raise what the last job has raised, once."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def wait(self) -> None:
        """Wait for the job under way."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()

    def _run(self, job: Callable[[], object]) -> None:
        try:
            job()
        except BaseException as error:  # raised in the thread that trains
            self._error = error
