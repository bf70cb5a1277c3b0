"""Writes checkpoints now, or in a thread from a copy."""

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fitkit.data.structure import map_leaves
from fitkit.store import Content

__all__ = ["BackgroundWriter", "copied"]


def copied(content: Content) -> Content:
    """Return a copy on the host that later steps do not change."""

    def copy(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if value.device.type == "cpu":
            return value.detach().clone(memory_format=torch.contiguous_format)
        return value.detach().cpu()  # sync: once per checkpoint and tensor, to copy it

    return Content(
        meta=map_leaves(lambda value: value, content.meta),  # new containers
        model={name: copy(tensor) for name, tensor in content.model.items()},
        state=map_leaves(copy, content.state),
    )


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
