"""The header of a GGUF file, read from any buffer without trusting it.

Every length is checked against the buffer and against a cap before it is used, so a mutated file gives ``GgufError``
(or a header), never another exception, and never a long wait. Big arrays (vocabularies) are stepped over: only
their type and count are kept. Layout and limits: ggml/include/gguf.h and gguf.cpp of llama.cpp b11434.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from typing import Any, NoReturn

import msgspec

from llamamgr.core.quants import TENSOR_TYPES, TensorType

MAGIC = b"GGUF"
DEFAULT_ALIGNMENT = 32
SHORT_ARRAY = 1024  # numbers; per-layer arrays of the deepest models fit
SHORT_STRING_ARRAY = 64

_MAX_PAIRS = 65_536
_MAX_TENSORS = 262_144
_MAX_KEY = 65_535
_MAX_STRING = 64 * 1024 * 1024
_MAX_STRINGS = 4 * 1024 * 1024  # elements of one string array; the largest vocabularies have 0.3 M
_MAX_TENSOR_NAME = 1024
_MAX_DIMENSIONS = 4
_MAX_ALIGNMENT = 1 << 30

_STRING, _ARRAY = 8, 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_FLOAT32 = 6
_TYPE_NAMES = ("u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "string", "array", "u64", "i64", "f64")
VALUE_TYPES = dict(enumerate(_TYPE_NAMES))
_READERS = {kind: struct.Struct(f"<{code}") for kind, code in _SCALARS.items()}
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")


class GgufError(ValueError):
    """The buffer is no GGUF header that can be read; the text says what is wrong at which byte."""


class TruncatedError(GgufError):
    """The buffer ends inside the header: more of the file may mend it."""


class LongArray(msgspec.Struct, frozen=True):
    """An array that was stepped over: ``type`` as in ``VALUE_TYPES``."""

    type: str
    count: int


class Tensor(msgspec.Struct, frozen=True):
    """One tensor's entry. ``shape`` is in ggml order (fastest first), ``offset`` counts from the data section."""

    name: str
    shape: tuple[int, ...]
    type: TensorType
    offset: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.type.nbytes(self.elements)


class Header(msgspec.Struct, frozen=True):
    """Everything before the weights.

    ``metadata`` maps keys to int, float, bool, str, tuple or ``LongArray``. ``data_offset`` is the byte at which the
    weights begin, and so the length of the header.
    """

    version: int
    metadata: dict[str, Any]
    tensors: tuple[Tensor, ...]
    alignment: int
    data_offset: int

    @property
    def file_size(self) -> int:
        """Bytes a complete file has at least: 0 without tensors; tensors of an unknown type count as nothing."""
        return max((self.data_offset + tensor.offset + tensor.nbytes for tensor in self.tensors), default=0)

    def text(self, key: str) -> str:
        """The string at ``key``; empty when absent or of another type."""
        value = self.metadata.get(key, "")
        return value if isinstance(value, str) else ""

    def number(self, key: str, default: int = 0) -> int:
        """The integer at ``key`` (of an array the largest); ``default`` when absent or of another type."""
        value = self.metadata.get(key)
        if isinstance(value, tuple) and value and all(isinstance(one, int) for one in value):
            return int(max(value))
        return int(value) if isinstance(value, int) else default


def read_header(buffer: Any, *, arrays: int | None = SHORT_ARRAY) -> Header:
    """The header at the start of ``buffer`` (bytes, memoryview, mmap).

    Arrays of more than ``arrays`` numbers (or 64 strings) become ``LongArray``; ``arrays=None`` keeps all.
    ``TruncatedError`` when the buffer ends too early, ``GgufError`` for all else that is wrong.
    """
    with memoryview(buffer) as raw, raw.cast("B") as view:
        cursor = _Cursor(view)
        version = _read_version(cursor)
        tensor_count = cursor.count("tensor count", _MAX_TENSORS, least=24)
        pair_count = cursor.count("metadata count", _MAX_PAIRS, least=13)
        metadata = _read_metadata(cursor, pair_count, arrays)
        alignment = _alignment(metadata)
        tensors = tuple(_read_tensors(cursor, tensor_count, alignment))
        return Header(version, metadata, tensors, alignment, -(-cursor.at // alignment) * alignment)


class _Cursor:
    """A place in the buffer; every read checks what is left."""

    __slots__ = ("at", "size", "view")

    def __init__(self, view: memoryview) -> None:
        self.view = view
        self.at = 0
        self.size = len(view)

    def take(self, reader: struct.Struct, what: str) -> Any:
        if self.at + reader.size > self.size:
            self.truncated(what)
        (value,) = reader.unpack_from(self.view, self.at)
        self.at += reader.size
        return value

    def string(self, what: str, longest: int) -> str:
        start = self.at
        length = self.take(_U64, f"length of {what}")
        if length > longest:
            raise GgufError(f"{what} at byte {start} claims {length} bytes, more than the {longest} allowed")
        if self.at + length > self.size:
            self.truncated(what)
        text = bytes(self.view[self.at : self.at + length]).decode("utf-8", "replace")
        self.at += length
        return text

    def count(self, what: str, most: int, least: int) -> int:
        """A count of things of at least ``least`` bytes each, none of them read yet."""
        start = self.at
        value: int = self.take(_U64, what)
        if value > most:
            raise GgufError(f"{what} at byte {start} is {value}, more than the {most} allowed")
        if value * least > self.size - self.at:
            self.truncated(what)
        return value

    def truncated(self, what: str) -> NoReturn:
        raise TruncatedError(
            f"the file ends at byte {self.size}, inside its header ({what} at byte {self.at})"
        )


def _read_version(cursor: _Cursor) -> int:
    magic = bytes(cursor.view[:4])
    if len(magic) < 4 and MAGIC.startswith(magic):
        cursor.truncated("magic")
    if magic == b"\0\0\0\0":
        raise GgufError("the file begins with zeros: it was set aside but never written")
    if magic != MAGIC:
        raise GgufError(f"not a GGUF file: it begins with {magic!r}")
    cursor.at = 4
    version: int = cursor.take(_U32, "version")
    if version in (2, 3):
        return version
    if version & 0xFFFF == 0 and version:
        raise GgufError("a big-endian GGUF file: convert it with gguf_convert_endian.py for this machine")
    raise GgufError(f"GGUF version {version} at byte 4; versions 2 and 3 can be read")


def _read_metadata(cursor: _Cursor, count: int, arrays: int | None) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for number in range(count):
        start = cursor.at
        key = cursor.string(f"key {number}", _MAX_KEY)
        if key in metadata:
            raise GgufError(f"key {key!r} at byte {start} occurs twice")
        metadata[key] = _read_value(cursor, key, arrays)
    return metadata


def _read_value(cursor: _Cursor, key: str, arrays: int | None) -> Any:
    start = cursor.at
    kind = cursor.take(_U32, f"type of {key!r}")
    if kind == _STRING:
        return cursor.string(f"value of {key!r}", _MAX_STRING)
    if kind == _ARRAY:
        return _read_array(cursor, key, arrays)
    if kind not in _READERS:
        raise GgufError(f"value type {kind} of {key!r} at byte {start} does not exist")
    value = cursor.take(_READERS[kind], f"value of {key!r}")
    return _shortest(value) if kind == _FLOAT32 else value


def _read_array(cursor: _Cursor, key: str, arrays: int | None) -> Any:
    start = cursor.at
    kind = cursor.take(_U32, f"element type of {key!r}")
    if kind == _STRING:
        return _read_strings(cursor, key, arrays)
    if kind not in _READERS:
        raise GgufError(f"element type {kind} of array {key!r} at byte {start} cannot be in an array")
    width = _READERS[kind].size
    count = cursor.count(f"length of array {key!r}", 1 << 30, least=width)
    first, cursor.at = cursor.at, cursor.at + count * width
    if arrays is not None and count > arrays:
        return LongArray(VALUE_TYPES[kind], count)
    values = struct.unpack_from(f"<{count}{_SCALARS[kind]}", cursor.view, first)
    return tuple(map(_shortest, values)) if kind == _FLOAT32 else values


def _read_strings(cursor: _Cursor, key: str, arrays: int | None) -> Any:
    count = cursor.count(f"length of array {key!r}", _MAX_STRINGS, least=8)
    if arrays is None or count <= min(arrays, SHORT_STRING_ARRAY):
        return tuple(cursor.string(f"element {number} of {key!r}", _MAX_STRING) for number in range(count))
    _step_over_strings(cursor, key, count)
    return LongArray("string", count)


def _step_over_strings(cursor: _Cursor, key: str, count: int) -> None:
    # The one hot loop of an index: a vocabulary has up to 300,000 strings, so each costs as little as can be.
    view, at, last, length_at = cursor.view, cursor.at, cursor.size - 8, _U64.unpack_from
    for _ in range(count):
        if at > last:
            break
        at += 8 + length_at(view, at)[0]
    else:
        if at <= cursor.size:
            cursor.at = at
            return
    cursor.truncated(f"array {key!r}")


def _alignment(metadata: dict[str, Any]) -> int:
    value = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if type(value) is not int or not 0 < value <= _MAX_ALIGNMENT or value & (value - 1):
        raise GgufError(f"general.alignment is {value!r}, which is no power of two")
    return value


def _read_tensors(cursor: _Cursor, count: int, alignment: int) -> Iterator[Tensor]:
    seen: set[str] = set()
    for number in range(count):
        start = cursor.at
        name = cursor.string(f"name of tensor {number}", _MAX_TENSOR_NAME)
        if name in seen:
            raise GgufError(f"tensor {name!r} at byte {start} occurs twice")
        seen.add(name)
        yield _read_tensor(cursor, name, alignment)


def _read_tensor(cursor: _Cursor, name: str, alignment: int) -> Tensor:
    start = cursor.at
    dimensions = cursor.take(_U32, f"dimensions of tensor {name!r}")
    if dimensions > _MAX_DIMENSIONS:
        raise GgufError(
            f"tensor {name!r} at byte {start} has {dimensions} dimensions; {_MAX_DIMENSIONS} are allowed"
        )
    shape = tuple(cursor.take(_U64, f"shape of tensor {name!r}") for _ in range(dimensions))
    if math.prod(shape) >= 1 << 62 or any(size >= 1 << 62 for size in shape):
        raise GgufError(f"tensor {name!r} at byte {start} has the impossible shape {shape}")
    number = cursor.take(_U32, f"type of tensor {name!r}")
    kind = TENSOR_TYPES.get(number) or TensorType(f"TYPE_{number}", 0, 0)
    if kind.block and shape and shape[0] % kind.block:
        raise GgufError(
            f"tensor {name!r} at byte {start}: rows of {shape[0]} do not divide into {kind.name} blocks"
        )
    offset = cursor.take(_U64, f"offset of tensor {name!r}")
    if offset % alignment or offset >= 1 << 62:
        raise GgufError(
            f"tensor {name!r} at byte {start}: its offset {offset} is not a multiple of {alignment}"
        )
    return Tensor(name, shape, kind, offset)


def _shortest(value: float) -> float:
    """The double nearest to a float32's shortest decimal spelling: 1e-05, not 9.999999747378752e-06."""
    if not math.isfinite(value):
        return value
    exact = struct.pack("<f", value)
    for digits in range(6, 9):
        spelled = float(f"{value:.{digits}g}")
        if abs(spelled) <= 3.4e38 and struct.pack("<f", spelled) == exact:
            return spelled
    return value
