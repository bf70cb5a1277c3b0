"""What this process uses of the machine, as far as the system tells without more packages."""

import os
import time
from pathlib import Path

__all__ = ["CPUShare", "resident_bytes"]

_STATM = Path("/proc/self/statm")  # Linux: pages in all, resident, ...


def resident_bytes() -> int | None:
    """Return the memory of this process that is in RAM; None where the system does not tell."""
    try:
        with open(_STATM, "rb", buffering=0) as file:  # between two steps: no text layer to set up
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError, AttributeError):
        return None


class CPUShare:
    """How many cores this process, with all its threads, has kept busy since the last time."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Measure from here on."""
        self._wall_s, self._cpu_s = time.perf_counter(), time.process_time()

    def read(self) -> float | None:
        """Return cores, 1.0 for one busy thread, and restart; None if no time has passed."""
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        passed_s, used_s = wall_s - self._wall_s, cpu_s - self._cpu_s
        self._wall_s, self._cpu_s = wall_s, cpu_s
        return used_s / passed_s if passed_s > 0 else None
