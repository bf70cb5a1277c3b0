"""From a path that a user gives to the checkpoint it leads to."""

import difflib
import os
from pathlib import Path

from fitkit.errors import CheckpointError, CheckpointUnsafeError
from fitkit.store.manifest import MANIFEST
from fitkit.store.saved import Saved, load
from fitkit.store.store import Store

__all__ = ["find"]


def find(path: Path) -> Saved:
    """Read the checkpoint a path leads to: a checkpoint, a folder of them, or a run with them.

    Raises:
        CheckpointError: If there is none.
        CheckpointCorruptError: If there are some, and none is intact.
    """
    if not path.exists():
        near = difflib.get_close_matches(path.name, _entries(path.parent), n=3, cutoff=0.3)
        raise CheckpointError(
            f"resume={str(path)!r} does not exist\n"
            f"Near it there is: {', '.join(near) or 'nothing'}.\n"
            "Give the folder of a run, of its checkpoints, or of one of them."
        )
    if not path.is_dir():
        raise CheckpointUnsafeError(
            f"resume={str(path)!r} is {_kind_of(path)}, expected a folder\n"
            "Load weights into the model before the loop is made, with the means of their format."
        )
    if (path / MANIFEST).exists():
        return load(path)
    for folder in (path, path / "checkpoints"):
        if (saved := Store(folder).latest()) is not None:
            return saved
    raise CheckpointError(
        f"no checkpoint was found in {path}\n"
        f"It holds: {', '.join(_entries(path)[:5]) or 'nothing'}.\n"
        'Give another folder; resume="auto" begins anew where there is none.'
    )


_MAGIC = {
    b"PK": "a zip archive, as .pt and .keras files are",
    b"\x89HDF": "an HDF5 file, as .h5 files are",
    b"\x80": "a pickle, as old .pt and .ckpt files are",
}


def _kind_of(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(8)
    return next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), "a file")


def _entries(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []
