"""Images side by side in one picture, and its PNG file."""

import struct
import zlib
from typing import Any

import torch
from torch import Tensor

from fitkit.errors import DataError

__all__ = ["grid_of", "png_of"]

_COLOR_TYPES = {1: 0, 3: 2}  # grey, RGB


def grid_of(images: Tensor, columns: int) -> Tensor:
    """Return images of shape (n, h, w, c) or (n, c, h, w), c = 1 or 3, as one of bytes (H, W, c).

    Args:
        images: uint8, or floats from 0 to 1; what is outside is clipped. On any device.
        columns: How many stand in a row.

    Raises:
        DataError: If they have another shape.

    Syncs: once, to copy the picture to the host.
    """
    if images.dim() == 3:
        images = images.unsqueeze(-1)
    if images.dim() == 4 and images.shape[-1] not in _COLOR_TYPES:
        images = images.movedim(1, -1)
    if images.dim() != 4 or images.shape[-1] not in _COLOR_TYPES or not len(images):
        raise DataError(
            f"images of shape {tuple(images.shape)} were given, expected (n, height, width, 1 or 3)"
            "\nReturn a batch of grey or RGB images, channels last or first."
        )
    if images.dtype != torch.uint8:
        images = (images.clamp(0, 1) * 255).round().to(torch.uint8)
    missing = -len(images) % columns
    rest = images.new_zeros(missing, *images.shape[1:])
    rows = torch.cat([images, rest]).reshape(-1, columns, *images.shape[1:])
    grid = rows.permute(0, 2, 1, 3, 4).flatten(2, 3).flatten(0, 1)
    return grid.cpu()  # sync: when a picture is written, the host makes a file of it


def png_of(picture: Tensor) -> bytes:
    """Return the PNG file of a picture of bytes, shape (height, width, 1 or 3), on the host."""
    height, width, channels = picture.shape
    pixels: Any = picture.flatten(1)
    values: list[list[int]] = pixels.tolist()  # sync: never, it is on the host
    lines = [b"\0" + bytes(line) for line in values]
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOR_TYPES[channels], 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"".join(lines))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
