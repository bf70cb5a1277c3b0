"""Traces of `torch.profiler`, with the names of events and callbacks."""

import os
import re
import socket
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, final

import torch

from fitkit.loop.bus import owner_of
from fitkit.loop.callback import Callback, Hook
from fitkit.loop.events import Event
from fitkit.loop.state import State

__all__ = ["Tracing"]

_MAX_MEMORY_EVENTS = 100_000


@final
class Tracing:
    """Runs `torch.profiler` over a few updates, as a tracer of the bus.

    Args:
        folder: Where the trace is written.
        owner: Its hooks get no range: it ends steps, and a range must not cross the end of one.
        warmup: Updates in which the profiler runs and forgets; the first ones are slow.
        active: Updates that are kept.
        device: On CUDA kernels are in the trace, and a snapshot of the memory is beside it.

    Attributes:
        path: The trace, once it is written.

    Raises:
        RuntimeError: If another profiler is running.
    """

    def __init__(
        self, folder: Path, owner: Callback, *, warmup: int, active: int, device: torch.device
    ) -> None:
        from torch import profiler

        autograd: Any = torch.autograd
        if autograd._profiler_enabled():  # torch would end that one without a word
            raise RuntimeError("another profiler is running")
        self._owner = owner
        self._folder = folder
        self._cuda = device.type == "cuda"
        self._range: Callable[[str], Any] = profiler.record_function
        module: Any = profiler
        self._profiler: Any = module.profile(
            schedule=module.schedule(wait=0, warmup=warmup, active=active, repeat=1),
            on_trace_ready=self._write,
            profile_memory=self._cuda,
        )
        self.path: Path | None = None
        self._profiler.start()
        if self._cuda:  # not tried on a GPU
            memory: Any = torch.cuda.memory
            memory._record_memory_history(max_entries=_MAX_MEMORY_EVENTS)

    def trace(self, event: Event, hook: Hook, state: State) -> None:
        """Call one hook within a range of its own."""
        owner = owner_of(hook)
        if owner is self._owner:
            hook(state)
            return
        with self._range(f"{event.name} {type(owner).__name__}"):
            hook(state)

    def region(self) -> Any:
        """Return a range around the step region; of a replayed step, it is the only one."""
        return self._range("step region")

    def step(self) -> None:
        """End an update."""
        self._profiler.step()

    def stop(self) -> None:
        """End it; what was kept so far is written."""
        self._profiler.stop()
        if self._cuda:
            memory: Any = torch.cuda.memory
            memory._record_memory_history(enabled=None)

    def _write(self, profiler: Any) -> None:
        host = re.sub(r"[^\w-]", "_", socket.gethostname())
        stem = f"{host}_{os.getpid()}.{time.time_ns() // 1_000_000}"
        # TensorBoard's plug-in looks for this ending.
        path = self._folder / f"{stem}.pt.trace.json"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            profiler.export_chrome_trace(str(path))
            if not path.exists():
                raise OSError("the profiler has not written it")
            if self._cuda:
                memory: Any = torch.cuda.memory
                memory._dump_snapshot(str(self._folder / f"{stem}.memory.pickle"))
            self.path = path
        except (OSError, RuntimeError) as error:
            warnings.warn(
                f"Profile cannot write {path}: {error}\nTraining goes on, without this trace.",
                stacklevel=2,
            )
