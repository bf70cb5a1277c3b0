"""The few things done to a disk: each in one function, so that a test can let any of them fail.

No link is ever followed for writing or deleting: folders are entered by descriptor, files are
opened with O_EXCL and O_NOFOLLOW. What is made can be read by its owner only.
"""

import os
import shutil
import stat
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["entered", "make_folder", "publish", "read_file", "remove_tree", "sync", "write_file"]

CHUNK = 16 << 20  # bytes; what is written, and hashed, at a time
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_OLD = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a pipe must not hold us
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def entered(folder: Path | str, *, within: int | None = None) -> Generator[int]:
    """Open a folder; the one named by a user may be a link, one within another may not."""
    flags = _FOLDER if within is None else _FOLDER | os.O_NOFOLLOW
    descriptor = os.open(folder, flags, dir_fd=within)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def make_folder(name: str, within: int) -> None:
    """Make a new folder that only its owner can enter."""
    os.mkdir(name, 0o700, dir_fd=within)


def write_file(
    name: str, parts: Iterable[memoryview], within: int, seen: Callable[[memoryview], object]
) -> None:
    """Write a new file and wait until the disk has it; `seen` gets each chunk before it is written.

    Args:
        name: The file.
        parts: What it will hold, in order.
        within: The folder.
        seen: Called with at most `CHUNK` bytes; chunks are as large as that but for the last one.
    """
    descriptor = os.open(name, _NEW, 0o600, dir_fd=within)
    try:
        for chunk in _chunks(parts):
            seen(chunk)
            while chunk:
                chunk = chunk[os.write(descriptor, chunk) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _chunks(parts: Iterable[memoryview]) -> Iterator[memoryview]:
    """Cut and join parts to chunks of `CHUNK` bytes; large parts are not copied."""
    held = bytearray()
    for part in parts:
        at = 0
        while at < len(part):
            if not held and len(part) - at >= CHUNK:
                yield part[at : at + CHUNK]
                at += CHUNK
                continue
            taken = part[at : at + CHUNK - len(held)]
            held += taken
            at += len(taken)
            if len(held) == CHUNK:
                yield memoryview(held)
                held = bytearray()
    if held:
        yield memoryview(held)


def sync(descriptor: int) -> None:
    """Wait until the disk has the entries of a folder."""
    os.fsync(descriptor)


def publish(temporary: str, name: str, within: int) -> None:
    """Give a finished folder its name, in one step, and wait until the disk has it."""
    os.rename(temporary, name, src_dir_fd=within, dst_dir_fd=within)
    os.fsync(within)


def remove_tree(name: str, within: int) -> None:
    """Delete a folder and what is in it, not through links."""
    shutil.rmtree(name, dir_fd=within)


def read_file(name: str, within: int, *, at_most: int) -> bytes:
    """Return what is in a file of the folder.

    Raises:
        ValueError: If it is longer than `at_most` bytes.
        OSError: If it is missing, a link or no file.
    """
    descriptor = os.open(name, _OLD, dir_fd=within)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is no file")
        size = status.st_size
        if size > at_most:
            raise ValueError(f"it has {size:,} bytes, at most {at_most:,} are expected")
        data = bytearray()
        while chunk := os.read(descriptor, min(CHUNK, size - len(data) + 1)):
            data += chunk
            if len(data) > size:
                raise ValueError("it grew while it was read")
        return bytes(data)
    finally:
        os.close(descriptor)
