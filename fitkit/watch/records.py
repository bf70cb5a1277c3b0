"""Event files byte by byte: records framed with checksums, and points without a protobuf object.

A file of TensorBoard is a sequence of TFRecords: the length (uint64), its checksum, an `Event`, its
checksum. TensorBoard's own writer computes the checksum byte by byte in Python; here
numpy computes those of many records at once.
"""

import struct
from collections.abc import Sequence
from functools import cache, lru_cache
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["PointFormat", "framed"]

_BLOCK = 512
_MASK = np.uint32(0xA282EAD8)
_POLYNOMIAL = np.uint32(0x82F63B78)  # CRC-32C (Castagnoli), reflected


@cache
def _tables() -> NDArray[np.uint32]:
    """Return [k, b]: what byte b, followed by k zero bytes, adds to a checksum; (512, 256)."""
    tables = np.zeros((_BLOCK, 256), np.uint32)
    tables[0] = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        tables[0] = np.where(tables[0] & 1, (tables[0] >> 1) ^ _POLYNOMIAL, tables[0] >> 1)
    for k in range(1, _BLOCK):
        tables[k] = (tables[k - 1] >> 8) ^ tables[0][tables[k - 1] & 0xFF]
    return tables


def _checksums(padded: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Return the masked CRC-32C of each row, shape (records,).

    A checksum is linear: the sum (xor) of what each byte adds at its distance from the end. Zero
    bytes in front add nothing, so rows of one width hold records of any length, right-aligned.
    """
    tables: Any = _tables()
    register: Any = np.zeros(len(padded), np.uint32)
    for start in range(0, padded.shape[1], _BLOCK):
        block = padded[:, start : start + _BLOCK]
        if start:  # the register acts on the first four bytes of the next block
            block = block.copy()
            block[:, :4] ^= register.astype("<u4").view(np.uint8).reshape(-1, 4)
        distances = np.arange(int(block.shape[1]) - 1, -1, -1)
        register = np.bitwise_xor.reduce(tables.take(distances * 256 + block), axis=1)
    return _rotated(~register) + _MASK


def _rotated(checksums: NDArray[np.uint32]) -> NDArray[np.uint32]:
    return (checksums >> np.uint32(15)) | (checksums << np.uint32(17))


def _tables_at(distances: NDArray[np.int64]) -> NDArray[np.uint32]:
    """Return what each byte adds to a checksum at these distances from the end, (bytes, 256)."""
    tables: Any = _tables()
    found = tables[distances % _BLOCK]
    for start in range(_BLOCK, int(distances.max()) + 1, _BLOCK):
        further = distances >= start  # another block of zeros comes behind these
        parts = [tables[_BLOCK - 1 - k][found[further] >> 8 * k & 0xFF] for k in range(4)]
        found[further] = np.bitwise_xor.reduce(parts)
    return found


def _aligned(records: Sequence[bytes]) -> NDArray[np.uint8]:
    """Return the records right-aligned, their first four bytes inverted: how a CRC begins."""
    width = max(map(len, records))
    if width > _BLOCK:
        width += -width % _BLOCK
    padded = np.frombuffer(b"".join([r.rjust(width, b"\0") for r in records]), np.uint8).copy()
    rows = padded.reshape(-1, width)
    starts = width - np.array([len(record) for record in records])
    rows[np.arange(len(rows))[:, None], starts[:, None] + np.arange(4)] ^= 0xFF
    return rows


def framed(records: Sequence[bytes]) -> bytes:
    """Return records of at least 4 bytes as they stand in a file."""
    checksums = np.zeros(len(records), "<u4")
    # Those of a like length at once: one picture among points must not widen every row.
    alike: dict[int, list[int]] = {}
    for i, record in enumerate(records):
        alike.setdefault((len(record) - 1) // _BLOCK, []).append(i)
    for rows in alike.values():
        checksums[rows] = _checksums(_aligned([records[i] for i in rows]))
    tails = checksums.tobytes()
    return b"".join(
        [
            part
            for i, record in enumerate(records)
            for part in (_head_of(len(record)), record, tails[4 * i : 4 * i + 4])
        ]
    )


@lru_cache(4096)
def _head_of(length: int) -> bytes:
    """Return the length of a record with its checksum."""
    head = struct.pack("<Q", length)
    return head + struct.pack("<I", int(_checksums(_aligned([head]))[0]))


class PointFormat:
    """Writes an `Event` with one number for each of the same tags, many of them at once.

    The bytes are those of protobuf. All but times, positions, numbers and checksums is fixed: it
    stands in a table of bytes, a row per event.

    Args:
        tags: What the points are called.
    """

    def __init__(self, tags: Sequence[str]) -> None:
        heads: list[bytes] = []
        for tag in tags:
            name = tag.encode()
            value = b"\x0a" + _varint(len(name)) + name + b"\x15"  # tag, then simple_value
            heads.append(b"\x0a" + _varint(len(value) + 4) + value)
        body = b"".join([head + bytes(4) for head in heads])
        self._summary = b"\x2a" + _varint(len(body)) + body
        self._layouts: dict[int, _Layout] = {}
        self._ends = [sum(len(head) + 4 for head in heads[k + 1 :]) for k in range(len(heads))]

    def framed(
        self, xs: Sequence[int], walls_s: Sequence[float], values: NDArray[np.float64]
    ) -> bytes:
        """Return events as they stand in a file; a number too large for 32 bits becomes infinite.

        Args:
            xs: The position of each event.
            walls_s: The time of each, seconds since 1970.
            values: Shape (events, tags).
        """
        with np.errstate(over="ignore"):
            numbers = _bytes_of(values.astype("<f4"))
        walls = _bytes_of(np.array(walls_s, "<f8")[:, None])
        if _size_of(min(xs)) == _size_of(max(xs)):  # most often
            return self._layout(_size_of(xs[0])).framed(xs, walls, numbers)
        parts: list[bytes] = []
        start = 0
        for size, group in groupby(xs, _size_of):
            rows = slice(start, start + len([*group]))
            parts.append(self._layout(size).framed(xs[rows], walls[rows], numbers[rows]))
            start = rows.stop
        return b"".join(parts)

    def _layout(self, size: int) -> "_Layout":
        """Return the layout of events whose position takes `size` bytes."""
        if size not in self._layouts:
            step = b"\x10" + bytes(size) if size else b""  # protobuf leaves out zeros
            record = b"\x09" + bytes(8) + step + self._summary
            numbers = [len(record) - end - 4 + k for end in self._ends for k in range(4)]
            self._layouts[size] = _Layout(record, size, numbers)
        return self._layouts[size]


class _Layout:
    """Events that differ in a few bytes only.

    Args:
        record: An event with zeros there.
        size: How many bytes the position takes.
        numbers: Where the bytes of the numbers are.
    """

    def __init__(self, record: bytes, size: int, numbers: Sequence[int]) -> None:
        varying = np.array([*range(1, 9), *range(10, 10 + size), *numbers])
        self._event = np.frombuffer(_head_of(len(record)) + record + bytes(4), np.uint8)
        self._columns = varying + 12
        # What each byte adds to the masked checksum, by its place and what it is.
        self._added: Any = _rotated(_tables_at(len(record) - 1 - varying)).ravel()
        self._offsets = np.arange(len(varying)) * 256
        self._checksum = _checksums(_aligned([record])) - _MASK  # of zeros
        self._shifts = 7 * np.arange(size, dtype=np.uint64)
        self._goes_on = np.array([0x80] * (size - 1) + [0] * min(size, 1), np.uint64)

    def framed(
        self, xs: Sequence[int], walls: NDArray[np.uint8], numbers: NDArray[np.uint8]
    ) -> bytes:
        """Return events whose positions take the same number of bytes.

        Args:
            xs: Their positions.
            walls: The bytes of their times, shape (events, 8).
            numbers: The bytes of their numbers, shape (events, 4 * tags).
        """
        positions = np.array(xs, np.int64).view(np.uint64)[:, None]  # two's complement, as protobuf
        steps = positions >> self._shifts & np.uint64(0x7F) | self._goes_on
        varying: Any = np.concatenate([walls, steps.astype(np.uint8), numbers], axis=1)
        table = np.empty((len(xs), len(self._event)), np.uint8)
        table[:] = self._event
        table[:, self._columns] = varying
        added = np.bitwise_xor.reduce(self._added.take(varying + self._offsets), axis=1)
        table[:, -4:] = _bytes_of(((self._checksum ^ added) + _MASK)[:, None].astype("<u4"))
        return table.tobytes()


def _bytes_of(table: NDArray[Any]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(table).view(np.uint8)


def _size_of(position: int) -> int:
    """Return how many bytes a position takes; protobuf leaves out a zero."""
    return 10 if position < 0 else (position.bit_length() + 6) // 7


def _varint(value: int) -> bytes:
    found = bytearray()
    value &= 0xFFFF_FFFF_FFFF_FFFF  # two's complement, as protobuf has it
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
