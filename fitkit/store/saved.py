"""One checkpoint: what it holds, and how it is read. Every byte is verified before it is used."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from fitkit.errors import CheckpointCorruptError
from fitkit.store.codec import MAX_JSON_BYTES, decode, parse
from fitkit.store.disk import entered, read_file
from fitkit.store.manifest import digest_of, read_manifest, verify
from fitkit.store.tensor_file import read_tensors

__all__ = ["Content", "Saved", "load", "name_of"]


@dataclass(slots=True)
class Content:
    """What one checkpoint holds.

    Attributes:
        meta: What is told without reading tensors: counters, versions, the monitored value. JSON.
        model: The tensors of the model by name, in order.
        state: Everything else, nested.
    """

    meta: dict[str, Any]
    model: dict[str, Tensor]
    state: dict[str, Any]


@dataclass(slots=True)
class Saved(Content):
    """A checkpoint that was read and verified.

    Attributes:
        path: Its folder.
        digest: SHA-256 of its manifest, and so of everything in it.
    """

    path: Path = field(default_factory=Path)
    digest: str = ""


def name_of(meta: Mapping[str, Any]) -> str:
    """Return the name of a checkpoint: names sort as the run went on."""
    counters = meta["counters"]
    return f"step-{counters['num_updates']:08d}-epoch-{counters['epoch']:04d}"


def load(path: Path, *, digest: str | None = None) -> Saved:
    """Read one checkpoint; every byte is verified before anything of it is used.

    Args:
        path: Its folder.
        digest: What its digest must be, if it is known from a safe place.

    Raises:
        CheckpointCorruptError: If it is not what was written, or has another digest.
    """
    try:
        with entered(path) as folder:
            manifest, files = read_manifest(folder)
            if digest is not None and digest != digest_of(manifest):
                raise ValueError(f"its digest is {digest_of(manifest)}, expected {digest}")
            verify(folder, files)
            document = parse(read_file("state.json", folder, at_most=MAX_JSON_BYTES))
        model = read_tensors(path / "model.safetensors")
        tensors = read_tensors(path / "state.safetensors")
        return Saved(
            meta=decode(document["meta"], {}),
            model={name: decode(part, model) for name, part in document["model"].items()},
            state=decode(document["state"], tensors),
            path=path,
            digest=digest_of(manifest),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointCorruptError(
            f"{path} is no intact checkpoint: {error}\nResume from another one."
        ) from error
