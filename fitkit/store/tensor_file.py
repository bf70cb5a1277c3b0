"""Tensors in the safetensors format: written here in one pass, read by the package `safetensors`.

The package writes a file by itself and gives no chance to hash beside it; hashing afterwards would
read everything once more. The format is eight bytes, a JSON header and the data.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from fitkit.errors import CheckpointCorruptError, CheckpointError

__all__ = ["MAX_HEADER_BYTES", "check_header", "parts_of", "read_tensors"]

MAX_HEADER_BYTES = 16 << 20
_SPARE = 8  # the data begins at a multiple of this, so that it can be mapped

_NAMES: dict[torch.dtype, str] = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.complex64: "C64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def parts_of(tensors: Mapping[str, Tensor]) -> tuple[int, Iterator[memoryview]]:
    """Return the size of the file in bytes, and its parts in order.

    A contiguous tensor on the CPU is not copied; others are, one at a time.

    Raises:
        CheckpointError: If the format has no name for a dtype.
    """
    # Widest first: then every tensor is aligned without gaps, which the format does not allow.
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, Any] = {}
    at = 0
    for name in names:
        tensor = tensors[name]
        if tensor.dtype not in _NAMES:
            raise CheckpointError(
                f"{name} has the dtype {tensor.dtype}, which safetensors has no name for\n"
                "Save it as another dtype, or as the bytes of tensor.view(torch.uint8)."
            )
        end = at + tensor.numel() * tensor.element_size()
        shape = list(tensor.shape)
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _SPARE)

    def parts() -> Iterator[memoryview]:
        yield memoryview(len(text).to_bytes(8, "little") + text)
        for name in names:
            if tensors[name].numel():
                yield _bytes_of(tensors[name])

    return 8 + len(text) + at, parts()


def _bytes_of(tensor: Tensor) -> memoryview:
    flat = tensor.detach().cpu()  # sync: once per checkpoint and tensor, to write it
    flat = flat.resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8)
    return memoryview(cast("Any", flat).numpy())  # sync: never, on the CPU


def check_header(descriptor: int, size: int) -> None:
    """Refuse a header that would take long to read, before anything reads it.

    Raises:
        ValueError: If the file claims a header larger than the file, or than `MAX_HEADER_BYTES`.
    """
    claimed = int.from_bytes(os.pread(descriptor, 8, 0), "little")
    if claimed > min(size - 8, MAX_HEADER_BYTES):
        raise ValueError(f"it claims a header of {claimed:,} bytes")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file, mapped: their pages are read when they are copied.

    Raises:
        CheckpointCorruptError: If it is no file of this format.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file  # pyright: ignore[reportUnknownVariableType]

    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            check_header(descriptor, os.fstat(descriptor).st_size)
        finally:
            os.close(descriptor)
        return load_file(path)
    except (SafetensorError, OSError, ValueError, RuntimeError, MemoryError) as error:
        raise CheckpointCorruptError(
            f"{path} cannot be read: {error}\nResume from another checkpoint."
        ) from error
