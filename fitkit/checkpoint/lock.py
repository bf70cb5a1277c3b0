"""One process per folder of checkpoints."""

import fcntl
import json
import os
import socket
from pathlib import Path

from fitkit.errors import ConfigError

__all__ = ["FolderLock"]

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class FolderLock:
    """Holds a folder for this process; the system gives it back if the process dies.

    Args:
        folder: Exists.

    Raises:
        ConfigError: If another process, or another loop of this one, holds it.
        OSError: If the lock cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / ".lock"
        self._descriptor = os.open(self.path, _FLAGS, 0o600)
        owner = {"pid": os.getpid(), "host": socket.gethostname()}
        try:
            # Of all locks this one is not handed down to workers, which may outlive the process.
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if self._holder() == owner:
                raise BlockingIOError
        except BlockingIOError:
            holder = self._holder()
            os.close(self._descriptor)
            raise ConfigError(
                f"{folder} is in use by process {holder.get('pid')} on {holder.get('host')}\n"
                "Wait for its end, or give this run another folder: FitLoop(..., run_dir=)."
            ) from None
        self._write(json.dumps(owner).encode())

    def release(self) -> None:
        """Give the folder back."""
        self._write(b"")
        os.close(self._descriptor)

    def _holder(self) -> dict[str, object]:
        try:
            return json.loads(os.pread(self._descriptor, 1000, 0) or b"{}")
        except ValueError:
            return {}

    def _write(self, data: bytes) -> None:
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, data, 0)
