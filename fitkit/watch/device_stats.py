"""How busy the device and this process are, and how much memory they hold."""

from typing import Any, final

import torch

from fitkit.loop.callback import TRAIN_ONLY, Callback
from fitkit.loop.interval import Interval
from fitkit.loop.state import State
from fitkit.watch.process import CPUShare, resident_bytes

__all__ = ["DeviceStats"]

_MB = 1e6


@final
class DeviceStats(Callback):
    """Log what the process and the device use, every few updates of training.

    What the system or the device does not tell is left out: the resident memory but on Linux, the
    utilization of a GPU without the package nvidia-ml-py.

    Args:
        every: How often: 100 updates, "1 epoch", "10 minutes".

    Reads:  the clocks and counters of the process and of `torch.cuda`.
    Writes: nothing.
    Logs:   device/cpu_cores, cores that the threads of this process keep busy; device/rss_mb, its
        memory in RAM, 10^6 bytes, the most of the pass. On CUDA also device/gpu_percent, the part
        of the time in which a kernel ran (mean of the last second or less);
        device/gpu_memory_mb, held by tensors; device/gpu_reserved_mb, held by torch;
        device/gpu_peak_mb, the most that tensors have held since the process began. At each such
        update under step/ in TensorBoard.
    Syncs:  never.
    Raises: ConfigError if `every` is no interval.

    Example:
        ```python
        import torch
        from fitkit import DeviceStats, FitLoop, TensorLoader, supervised

        model = torch.nn.Linear(4, 1)
        loop = FitLoop(model, TensorLoader(torch.randn(640, 4), torch.randn(640, 1)))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        stats = DeviceStats(every=10)
        loop.attach(supervised(loss=torch.nn.MSELoss(), optimizer=optimizer), stats)
        assert loop.fit(epochs=1)["device/cpu_cores"][0] > 0
        ```
    """

    phases = TRAIN_ONLY
    only_watches = True

    def __init__(self, every: int | str = 100) -> None:
        self._interval = Interval.parse(every)
        self._cpu = CPUShare()
        self._tells_utilization = True

    def on_fit_begin(self, state: State) -> None:
        """Measure from here on."""
        self._interval.start(state)
        self._cpu.restart()

    def on_batch_end(self, state: State) -> None:
        """Log what was used, if it is due."""
        if not self._interval.due(state):
            return
        self._interval.mark(state)
        self._log(state, "cpu_cores", self._cpu.read())
        self._log(state, "rss_mb", _mb(resident_bytes()), most=True)
        if state.device.type == "cuda":
            self._log_cuda(state)

    def _log_cuda(self, state: State) -> None:
        # Not tried on a GPU. All of it is counted on the host: nothing waits for the device.
        cuda: Any = torch.cuda
        if self._tells_utilization:
            try:
                self._log(state, "gpu_percent", cuda.utilization(state.device))
            except Exception:  # no package, no driver library, no rights: each has its own error
                self._tells_utilization = False
        self._log(state, "gpu_memory_mb", _mb(cuda.memory_allocated(state.device)))
        self._log(state, "gpu_reserved_mb", _mb(cuda.memory_reserved(state.device)))
        self._log(state, "gpu_peak_mb", _mb(cuda.max_memory_allocated(state.device)), most=True)

    def _log(self, state: State, name: str, value: float | None, *, most: bool = False) -> None:
        if value is not None:
            # Filled on the device: a copy of a host value would wait for it.
            scalar = torch.full((), value, dtype=torch.float32, device=state.device)
            state.log(f"device/{name}", scalar, reduce="max" if most else "mean")


def _mb(number: int | None) -> float | None:
    return None if number is None else number / _MB
