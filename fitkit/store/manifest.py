"""Which files a checkpoint has, and their SHA-256 digests, computed beside writing and reading.

Digests are taken of chunks of 16 MiB, so that several threads can share a file. The manifest is
canonical JSON: of two that say the same, only one is right, so that any changed byte is seen.
"""

import hashlib
import os
from collections.abc import Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from fitkit.store.codec import MAX_JSON_BYTES, parse, to_json
from fitkit.store.disk import CHUNK, read_file

__all__ = [
    "FORMAT",
    "MANIFEST",
    "Hasher",
    "check_sizes",
    "digest_of",
    "hashing",
    "manifest_of",
    "read_manifest",
    "verify",
]

FORMAT = 1
MANIFEST = "manifest.json"
_FILES = frozenset({"model.safetensors", "state.safetensors", "state.json"})
_AHEAD = 64  # chunks that may wait for a thread: 1 GiB, if they are copies from a GPU
_THREADS = min(4, os.cpu_count() or 1)

Files = dict[str, dict[str, Any]]


class Hasher:
    """Hashes chunks in threads; what is given must not change until the result is asked for."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._digests: list[Future[str]] = []
        self.num_bytes = 0

    def add(self, chunk: memoryview | bytes) -> None:
        """Hash the next chunk."""
        self.num_bytes += len(chunk)
        self._digests.append(self._pool.submit(_sha256, chunk))
        if len(self._digests) > _AHEAD:
            self._digests[-_AHEAD].result()

    def entry(self) -> dict[str, Any]:
        """Return the entry of the file in the manifest."""
        return {"bytes": self.num_bytes, "sha256": [digest.result() for digest in self._digests]}


def _sha256(chunk: memoryview | bytes) -> str:
    return hashlib.sha256(chunk).hexdigest()


@contextmanager
def hashing() -> Generator[ThreadPoolExecutor]:
    """Give the threads that hash; they end with the block."""
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="fitkit-sha256") as pool:
        yield pool


def manifest_of(files: Mapping[str, dict[str, Any]]) -> bytes:
    """Return the manifest of the files."""
    return to_json({"format": FORMAT, "chunk_bytes": CHUNK, "files": dict(sorted(files.items()))})


def digest_of(manifest: bytes) -> str:
    """Return the digest of a whole checkpoint: that of its manifest."""
    return _sha256(manifest)


def read_manifest(folder: int) -> tuple[bytes, Files]:
    """Return the manifest of a folder, as bytes and as entries by file name.

    Raises:
        ValueError: If it is not what `manifest_of` writes, or of a newer format.
        OSError: If it cannot be read.
    """
    data = read_file(MANIFEST, folder, at_most=MAX_JSON_BYTES)
    found: Any = parse(data)
    try:
        if found["format"] > FORMAT:
            raise ValueError(f"it has format {found['format']}, this fitkit reads up to {FORMAT}")
        files: Files = found["files"]
        right = files.keys() == _FILES and all(map(_is_entry, files.values()))
        if right and manifest_of(files) == data:
            return data, files
    except (TypeError, KeyError, AttributeError):
        pass
    raise ValueError("its manifest is none that fitkit has written")


def _is_entry(entry: dict[str, Any]) -> bool:
    size, digests = entry["bytes"], entry["sha256"]
    return len(entry) == 2 and type(size) is int and len(digests) == -(-size // CHUNK)


def check_sizes(folder: int, files: Files) -> None:
    """Check that a folder has the files of its manifest, of the right sizes, and no others.

    Raises:
        ValueError: If it does not.
    """
    found = set(os.listdir(folder))
    if found != {*files, MANIFEST}:
        missing, extra = sorted({*files, MANIFEST} - found), sorted(found - {*files, MANIFEST})
        raise ValueError(f"files missing: {missing or 'none'}, too many: {extra or 'none'}")
    for name, entry in files.items():
        size = os.stat(name, dir_fd=folder, follow_symlinks=False).st_size
        if size != entry["bytes"]:
            raise ValueError(f"{name} has {size:,} bytes, {entry['bytes']:,} were written")


def verify(folder: int, files: Files) -> None:
    """Check every byte of a folder.

    Raises:
        ValueError: If one is not what was written.
        OSError: If a file cannot be read, or is a link.
    """
    check_sizes(folder, files)
    with hashing() as pool:
        for name, entry in files.items():
            _verify_file(name, entry, folder, pool)


def _verify_file(name: str, entry: dict[str, Any], folder: int, pool: ThreadPoolExecutor) -> None:
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)

    def digest_at(start: int) -> str:
        return _sha256(os.pread(descriptor, CHUNK, start))

    try:  # each thread reads its own chunks: nothing waits for another, and little is in memory
        digests = list(pool.map(digest_at, range(0, entry["bytes"], CHUNK)))
    finally:
        os.close(descriptor)
    for number, (digest, written) in enumerate(zip(digests, entry["sha256"], strict=True)):
        if digest != written:
            raise ValueError(f"{name} is not what was written: chunk {number} has another SHA-256")
