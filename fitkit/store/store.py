"""A folder of checkpoints: found by verified step, published by one rename, deleted by policy."""

import errno
import os
import re
import secrets
import shutil
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from fitkit.errors import CheckpointCorruptError, CheckpointError, CheckpointWriteError
from fitkit.store.codec import MAX_JSON_BYTES, Codec, decode, parse, to_json
from fitkit.store.disk import (
    entered,
    make_folder,
    publish,
    read_file,
    remove_tree,
    sync,
    write_file,
)
from fitkit.store.manifest import (
    MANIFEST,
    Files,
    Hasher,
    check_sizes,
    hashing,
    manifest_of,
    read_manifest,
)
from fitkit.store.saved import Content, Saved, load, name_of
from fitkit.store.tensor_file import parts_of

__all__ = ["Store"]

_NAME = re.compile(r"step-(\d{8,18})-epoch-(\d{4,18})(?:-(\d{1,6}))?")
_TEMPORARY = re.compile(r"\.(?:tmp|old)-[0-9a-f]{16}")


class Store:
    """The checkpoints in one folder. Names it has not given are left alone.

    Args:
        folder: Made when the first checkpoint is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._metas: dict[str, dict[str, Any]] = {}
        self._told_of_deleting = False

    def names(self) -> list[str]:
        """Return the names of the checkpoints, oldest first, as far as names tell."""
        try:
            with os.scandir(self.folder) as entries:
                found = [e.name for e in entries if e.is_dir(follow_symlinks=False)]
        except FileNotFoundError:
            return []
        except NotADirectoryError:
            raise CheckpointError(
                f"{self.folder} is a file, expected a folder of checkpoints\nGive another folder."
            ) from None
        return sorted(filter(_NAME.fullmatch, found), key=_order)

    def latest(self) -> Saved | None:
        """Return the newest intact checkpoint, None if there never was one.

        Warns of newer ones that are not intact, once.

        Raises:
            CheckpointCorruptError: If there are checkpoints, and none is intact.
        """
        refused: list[str] = []
        for name in reversed(self.names()):
            path = self.folder / name
            try:
                saved = load(path)
                if _order(name)[:2] != _order(name_of(saved.meta))[:2]:
                    raise CheckpointCorruptError(f"{path} holds {name_of(saved.meta)}")
            except CheckpointCorruptError as error:
                refused.append(str(error).splitlines()[0])
                continue
            if refused:
                text = "\n".join(refused)
                warnings.warn(f"{text}\nThe newest intact checkpoint is {path}.", stacklevel=2)
            return saved
        if refused:
            text = "\n".join(refused)
            raise CheckpointCorruptError(
                f"none of the {len(refused)} checkpoints in {self.folder} is intact\n{text}\n"
                "Train anew in another folder, or leave out resume= and delete them."
            )
        return None

    def write(self, content: Content) -> Path:
        """Write a checkpoint; it is complete and on the disk when it gets its name.

        Raises:
            CheckpointWriteError: If the disk does not take it; nothing of it is left then.
            CheckpointError: If it holds something that is not saved.
        """
        codec, of_model = Codec(), Codec()
        document = to_json(
            {
                "meta": codec.encode(content.meta, "meta"),
                "model": {name: of_model.encode(t, name) for name, t in content.model.items()},
                "state": codec.encode(content.state, "state"),
            }
        )
        if len(document) > MAX_JSON_BYTES:
            raise CheckpointError(
                f"the state without tensors has {len(document):,} bytes, at most "
                f"{MAX_JSON_BYTES:,} are saved\nReturn long lists from state_dict() as tensors."
            )
        parts = {
            "model.safetensors": parts_of(of_model.tensors),
            "state.safetensors": parts_of(codec.tensors),
            "state.json": (len(document), iter([memoryview(document)])),
        }
        needed = sum(size for size, _ in parts.values())
        try:
            return self._write(name_of(content.meta), {n: p for n, (_, p) in parts.items()})
        except OSError as error:
            raise self._write_error(error, needed) from error

    def _write(self, name: str, parts: Mapping[str, Any]) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = f".tmp-{secrets.token_hex(8)}"
        with entered(self.folder) as parent:
            make_folder(temporary, parent)
            try:
                with entered(temporary, within=parent) as inner:
                    _write_files(inner, parts)
                    sync(inner)
                name = _free_name(name, self.names())
                publish(temporary, name, parent)
            except BaseException:
                _try_to_remove(temporary, parent)
                raise
        return self.folder / name

    def _write_error(self, error: OSError, needed: int) -> CheckpointWriteError:
        try:
            free = f"{shutil.disk_usage(self.folder).free:,}"
        except OSError:
            free = "unknown"
        code = errno.errorcode.get(error.errno or 0, str(error.errno))
        return CheckpointWriteError(
            f"no checkpoint could be written to {self.folder}: {code}, {error.strerror or error}\n"
            f"It needs {needed:,} bytes, free are: {free}. Earlier checkpoints are as they were.\n"
            'Free space or give another folder; Checkpoint(on_error="warn") trains on without.'
        )

    def metas(self) -> dict[str, dict[str, Any]]:
        """Return what is told of each complete checkpoint, oldest first; bytes are not verified."""
        names = self.names()
        self._metas = {name: meta for name, meta in self._metas.items() if name in names}
        return {name: meta for name in names if (meta := self._meta(name)) is not None}

    def _meta(self, name: str) -> dict[str, Any] | None:
        try:
            with entered(self.folder) as parent, entered(name, within=parent) as folder:
                check_sizes(folder, read_manifest(folder)[1])
                if name not in self._metas:
                    document = parse(read_file("state.json", folder, at_most=MAX_JSON_BYTES))
                    self._metas[name] = decode(document["meta"], {})
                return self._metas[name]
        except (OSError, ValueError, KeyError, TypeError, CheckpointCorruptError):
            return None

    def delete(self, names: Collection[str]) -> None:
        """Delete checkpoints; what cannot be deleted now is tried again by the next call.

        Each is renamed first, so that no half-deleted one is ever taken for a checkpoint.
        """
        try:
            with entered(self.folder) as parent:
                for name in names:
                    os.rename(
                        name, f".old-{secrets.token_hex(8)}", src_dir_fd=parent, dst_dir_fd=parent
                    )
                self._sweep(parent, ".old-")
        except OSError as error:
            if not self._told_of_deleting:
                self._told_of_deleting = True
                warnings.warn(
                    f"an old checkpoint in {self.folder} cannot be deleted: {error}\n"
                    "Training goes on; it is tried again after every later checkpoint.",
                    stacklevel=2,
                )

    def sweep(self) -> None:
        """Delete what a crash has left behind: unfinished and half-deleted checkpoints."""
        try:
            with entered(self.folder) as parent:
                self._sweep(parent, ".")
        except OSError:
            return  # they are in nobody's way

    def _sweep(self, parent: int, prefix: str) -> None:
        for name in os.listdir(parent):
            if _TEMPORARY.fullmatch(name) and name.startswith(prefix):
                remove_tree(name, parent)


def _write_files(folder: int, parts: Mapping[str, Any]) -> None:
    with hashing() as pool:
        files: Files = {}
        for name, part in parts.items():
            hasher = Hasher(pool)
            write_file(name, part, folder, hasher.add)
            files[name] = hasher.entry()
        write_file(MANIFEST, [memoryview(manifest_of(files))], folder, len)


def _try_to_remove(name: str, parent: int) -> None:
    try:
        remove_tree(name, parent)
    except OSError:
        return  # the error that led here is the one to tell


def _order(name: str) -> tuple[int, int, int]:
    match = _NAME.fullmatch(name)
    if match is None:
        return (-1, -1, -1)
    return int(match[1]), int(match[2]), int(match[3] or 1)


def _free_name(name: str, taken: Collection[str]) -> str:
    """Return the name, numbered if a checkpoint of an abandoned run has it."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    return free
