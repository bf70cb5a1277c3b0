"""Event files byte by byte: records framed with checksums, and points without a protobuf object.

A file of TensorBoard is a sequence of TFRecords: the length (uint64), its checksum, an `Event`, its
checksum. TensorBoard's own writer computes the checksum byte by byte in Python, 40 us for a single
point and 70 ms for a picture of 100 KB; here numpy computes those of many records at once.
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
_SIZES = np.array([1] + [1 << 7 * k for k in range(1, 10)], np.uint64)  # least number of k+1 bytes
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
    crc = ~register
    return ((crc >> 15) | (crc << 17)) + np.uint32(0xA282EAD8)


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


def _inverted(rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return records of one length, shape (records, length), as `_aligned` does."""
    num, length = rows.shape
    missing = -length % _BLOCK if length > _BLOCK else 0
    padded = np.zeros((num, missing + length), np.uint8)
    padded[:, missing:] = rows
    padded[:, missing : missing + 4] ^= 0xFF
    return padded


def framed(records: Sequence[bytes]) -> bytes:
    """Return records of at least 4 bytes as they stand in a file."""
    checksums = np.zeros(len(records), "<u4")
    # One picture among points must not widen every row to its own size.
    short = [i for i, record in enumerate(records) if len(record) <= _BLOCK]
    if short:
        checksums[short] = _checksums(_aligned([records[i] for i in short]))
    for i, record in enumerate(records):
        if len(record) > _BLOCK:
            checksums[i] = _checksums(_aligned([record]))[0]
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
        self._events: dict[int, NDArray[np.uint8]] = {}
        self._ends: list[int] = [0]  # of the numbers, from the end of the record
        for head in reversed(heads[1:]):
            self._ends.insert(0, self._ends[0] + len(head) + 4)

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
        positions = np.array(xs, np.int64).view(np.uint64)  # two's complement, as protobuf has it
        sizes = np.searchsorted(_SIZES, positions, side="right").tolist()  # sync: none, numpy
        parts: list[bytes] = []
        start = 0
        for size, group in groupby(sizes):
            rows = slice(start, start + len(list(group)))
            table = np.tile(self._event(size), (rows.stop - start, 1))
            table[:, 13:21] = walls[rows]
            for k in range(size):
                more = 0x80 if k < size - 1 else 0
                table[:, 22 + k] = positions[rows] >> np.uint64(7 * k) & np.uint64(0x7F) | more
            for k, left in enumerate(self._ends):
                at = table.shape[1] - 8 - left
                table[:, at : at + 4] = numbers[rows, 4 * k : 4 * k + 4]
            checksums = _checksums(_inverted(table[:, 12:-4]))
            table[:, -4:] = _bytes_of(checksums[:, None].astype("<u4"))
            parts.append(table.tobytes())
            start = rows.stop
        return b"".join(parts)

    def _event(self, size: int) -> NDArray[np.uint8]:
        """Return the bytes of an event whose position takes `size` of them; shape (length,)."""
        if size not in self._events:
            step = b"\x10" + bytes(size) if size else b""  # protobuf leaves out zeros
            record = b"\x09" + bytes(8) + step + self._summary
            event = _head_of(len(record)) + record + bytes(4)
            self._events[size] = np.frombuffer(event, np.uint8)
        return self._events[size]


def _bytes_of(table: NDArray[Any]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(table).view(np.uint8)


def _varint(value: int) -> bytes:
    found = bytearray()
    value &= 0xFFFF_FFFF_FFFF_FFFF  # two's complement, as protobuf has it
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
