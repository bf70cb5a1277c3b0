"""Nested state as JSON and named tensors, and back: every value returns with its type.

What JSON cannot hold is a dict with one key that begins with "$". Reading builds numbers, strings,
containers, arrays and tensors; it looks up no name and calls nothing that a file asks for.
"""

import json
import math
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from fitkit.errors import CheckpointCorruptError, CheckpointError

__all__ = ["MAX_JSON_BYTES", "Codec", "decode", "parse", "to_json"]

MAX_JSON_BYTES = 8 << 20  # what parsing it takes stays below 200 MB
_KINDS = "biufc"  # of numpy's dtypes: bool, signed, unsigned, float, complex


class Codec:
    """Takes nested state apart.

    Attributes:
        tensors: What `encode` has found, by the names its result refers to. They are the very
            tensors, detached, where they lie.
    """

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}

    def encode(self, value: Any, path: str) -> Any:
        """Return `value` as what JSON can hold; `path` names it in messages and its tensors.

        Raises:
            CheckpointError: If it is, or holds, something else than numbers, strings, None, bytes,
                tensors, numpy arrays, dicts, lists, tuples.
        """
        if value is None or type(value) in (bool, int, str):
            return value
        if type(value) is float:
            return value if math.isfinite(value) else {"$float": repr(value)}
        if isinstance(value, Tensor):
            return self._tensor(value.detach(), path)
        if _is_numpy(value):
            return self._numpy(value, path)
        if isinstance(value, bytes):
            return {"$bytes": self._name(_bytes_as_tensor(value), path)}
        if isinstance(value, Mapping):
            return self._mapping(cast("Mapping[Any, Any]", value), path)
        if isinstance(value, list | tuple):
            parts = cast("list[Any] | tuple[Any, ...]", value)
            items = [self.encode(item, f"{path}.{index}") for index, item in enumerate(parts)]
            return items if isinstance(value, list) else {"$tuple": items}
        for plain in (int, float, str):
            if isinstance(value, plain):  # a subclass, such as an IntEnum
                return self.encode(plain(value), path)
        raise CheckpointError(
            f"{path} is a {type(value).__module__}.{type(value).__qualname__}, which is not saved\n"
            "Return numbers, strings, tensors, arrays, dicts and lists from state_dict()."
        )

    def _mapping(self, value: Mapping[Any, Any], path: str) -> Any:
        plain = all(type(key) is str and not key.startswith("$") for key in value)
        pairs = [(key, self.encode(item, f"{path}.{key}")) for key, item in value.items()]
        if plain:
            return dict(pairs)
        return {"$dict": [[self.encode(key, f"{path} (a key)"), item] for key, item in pairs]}

    def _tensor(self, value: Tensor, path: str) -> Any:
        if value.layout is not torch.strided or value.is_quantized:
            raise CheckpointError(
                f"{path} is a {value.layout} tensor, expected a dense one\n"
                "Save value.to_dense(), or its parts."
            )
        if value.dtype is torch.complex128:  # the format knows complex64 only
            return {"$complex": self._name(torch.view_as_real(value.resolve_conj()), path)}
        return {"$tensor": self._name(value, path)}

    def _numpy(self, value: Any, path: str) -> Any:
        dtype, shape = value.dtype.newbyteorder("="), list(value.shape)
        name = self._name(_bytes_as_tensor(np.ascontiguousarray(value, dtype).tobytes()), path)
        key = "$scalar" if isinstance(value, np.generic) else "$array"
        return {key: [f"{dtype.kind}{dtype.itemsize}", shape, name]}

    def _name(self, tensor: Tensor, path: str) -> str:
        name, number = path, 2
        while name in self.tensors:
            name, number = f"{path}#{number}", number + 1
        self.tensors[name] = tensor
        return name


def _is_numpy(value: Any) -> bool:
    return isinstance(value, np.ndarray | np.generic) and cast("Any", value).dtype.kind in _KINDS


def _bytes_as_tensor(data: bytes) -> Tensor:
    if not data:
        return torch.empty(0, dtype=torch.uint8)
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def decode(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Put together what `Codec.encode` took apart.

    Raises:
        CheckpointCorruptError: If a tensor is missing, or something is not what `encode` writes.
    """
    if isinstance(value, list):
        return [decode(item, tensors) for item in cast("list[Any]", value)]
    if not isinstance(value, dict):
        return value
    found = cast("dict[str, Any]", value)
    mark = next(iter(found)) if len(found) == 1 else ""
    if not mark.startswith("$"):
        return {key: decode(item, tensors) for key, item in found.items()}
    try:
        return _decode_marked(mark, found[mark], tensors)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointCorruptError(
            f"the checkpoint has a bad value of the kind '{mark}': {error}\n"
            "Resume from another checkpoint."
        ) from error


def _decode_marked(mark: str, inner: Any, tensors: Mapping[str, Tensor]) -> Any:
    match mark:
        case "$tensor":
            return tensors[inner]
        case "$complex":
            return torch.view_as_complex(tensors[inner].clone())
        case "$bytes":
            return _bytes_of(tensors[inner])
        case "$float":
            return {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}[inner]
        case "$tuple":
            return tuple(decode(inner, tensors))
        case "$dict":
            return {decode(key, tensors): decode(item, tensors) for key, item in inner}
        case "$array" | "$scalar":
            kind, shape, name = inner
            dtype = np.dtype(kind)
            if dtype.kind not in _KINDS:
                raise ValueError(f"dtype {kind}")
            array = np.frombuffer(_bytes_of(tensors[name]), dtype).reshape(shape).copy()
            return array if mark == "$array" else array[()]
        case _:
            raise ValueError("it is unknown")


def _bytes_of(tensor: Tensor) -> bytes:
    return cast("Any", tensor).numpy().tobytes()  # sync: never, on the CPU


def to_json(value: Any) -> bytes:
    """Return canonical JSON: one text per value."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"), ensure_ascii=True)
    return text.encode()


def parse(data: bytes) -> Any:
    """Read JSON that `to_json` wrote; nothing else gets through.

    Raises:
        ValueError: If a key is doubled, a number is none, the nesting is too deep, or it is no
            JSON at all.
    """
    try:
        return json.loads(data, object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands there twice")
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")
