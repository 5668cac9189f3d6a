"""A GGUF version 3 file of values and F32 tensors, with the standard library alone: the same input gives the same bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence

import msgspec

Value = str | bool | int | float | Sequence[str] | Sequence[int] | Sequence[float]

_ALIGNMENT = 32
_U32, _I32, _F32, _BOOL, _STRING, _ARRAY = 4, 5, 6, 7, 8, 9
_FORMATS = {_U32: "I", _I32: "i", _F32: "f", _BOOL: "?"}


class F32Tensor(msgspec.Struct, frozen=True):
    """A tensor to write: ``shape`` in ggml order (row length first), ``data`` little-endian float32 of that many elements."""

    name: str
    shape: tuple[int, ...]
    data: bytes


def gguf_bytes(metadata: Mapping[str, Value], tensors: Iterable[F32Tensor] = ()) -> bytes:
    """The whole file. Integers become u32 (in arrays i32), floats f32."""
    tensors = list(tensors)
    out = bytearray(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata)))
    for key, value in metadata.items():
        out += _string(key) + _value(value)
    offset = 0
    for tensor in tensors:
        out += _string(tensor.name) + struct.pack("<I", len(tensor.shape))
        out += struct.pack(f"<{len(tensor.shape)}QIQ", *tensor.shape, 0, offset)
        offset += len(_padded(tensor.data))
    out = _padded(out)
    for tensor in tensors:
        out += _padded(tensor.data)
    return bytes(out)


def _value(value: Value) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", _STRING) + _string(value)
    if isinstance(value, bool | int | float):
        kind = _scalar_type(value, _U32)
        return struct.pack(f"<I{_FORMATS[kind]}", kind, value)
    if value and isinstance(value[0], str):
        return struct.pack("<IIQ", _ARRAY, _STRING, len(value)) + b"".join(
            _string(str(text)) for text in value
        )
    kind = _scalar_type(value[0], _I32) if value else _I32
    return struct.pack(f"<IIQ{len(value)}{_FORMATS[kind]}", _ARRAY, kind, len(value), *value)


def _scalar_type(value: object, integer: int) -> int:
    if isinstance(value, bool):
        return _BOOL
    return _F32 if isinstance(value, float) else integer


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _padded(data: bytes | bytearray) -> bytearray:
    return bytearray(data) + bytes(-len(data) % _ALIGNMENT)
