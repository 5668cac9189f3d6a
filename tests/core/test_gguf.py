"""The header reader against the gguf package, against damage, and against hostile lengths."""

from __future__ import annotations

import struct
import time
from pathlib import Path

import gguf
import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamamgr.core.gguf import GgufError, Header, LongArray, TruncatedError, read_header
from llamamgr.core.quants import FILE_TYPES, TENSOR_TYPES
from llamamgr.models.writer import F32Tensor, gguf_bytes
from tests.golden.replay import MODELS

SMALL = gguf_bytes(
    {
        "general.architecture": "llama",
        "llama.context_length": 64,
        "a.list": [1, 2, 3],
        "a.words": ["x", "yz"],
        "f": 1e-5,
    },
    [F32Tensor("w", (4, 2), bytes(32)), F32Tensor("v", (3,), bytes(12))],
)
PREFIX = struct.pack("<4sIQQ", b"GGUF", 3, 0, 1)


def pair(key: str, kind: int, value: bytes) -> bytes:
    return PREFIX + struct.pack("<Q", len(key)) + key.encode() + struct.pack("<I", kind) + value


@pytest.mark.parametrize("name", ["tinychat.gguf", "tinyembed.gguf"])
def test_a_header_is_what_the_gguf_package_reads(name: str):
    ours, theirs = read_header((MODELS / name).read_bytes(), arrays=None), gguf.GGUFReader(MODELS / name)
    for key, value in ours.metadata.items():
        expected = theirs.fields[key].contents()
        assert list(value) if isinstance(value, tuple) else value == pytest.approx(expected), key
    assert len(ours.metadata) + 3 == len(theirs.fields)
    assert [(t.name, list(t.shape), t.type.name, t.nbytes) for t in ours.tensors] == [
        (t.name, t.shape.tolist(), t.tensor_type.name, int(t.n_bytes)) for t in theirs.tensors
    ]
    assert ours.data_offset == theirs.data_offset
    assert ours.file_size == (MODELS / name).stat().st_size


def test_every_value_type_and_alignment_of_the_gguf_writer_is_read(tmp_path: Path):
    path = tmp_path / "all.gguf"
    writer = gguf.GGUFWriter(path, "test")
    values = {
        "u8": 200,
        "i8": -3,
        "u16": 60_000,
        "i16": -9,
        "u32": 4_000_000_000,
        "i32": -5,
        "u64": 1 << 60,
        "i64": -7,
    }
    for kind, value in values.items():
        getattr(writer, f"add_{kind.replace('u', 'uint').replace('i', 'int').replace('uintnt', 'uint')}")(
            kind, value
        )
    writer.add_float32("f32", 0.1)
    writer.add_float64("f64", 0.1)
    writer.add_bool("bool", True)
    writer.add_string("text", "naïve ▁ 🦙")
    writer.add_array("floats", [0.5, 0.25])
    writer.add_custom_alignment(64)
    writer.add_tensor("w", numpy.zeros((2, 256), dtype=numpy.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    header = read_header(path.read_bytes())
    expected = values | {"f32": 0.1, "f64": 0.1, "bool": True, "text": "naïve ▁ 🦙", "floats": (0.5, 0.25)}
    assert {key: header.metadata[key] for key in expected} == expected
    assert (header.alignment, header.data_offset % 64, header.tensors[0].shape) == (64, 0, (256, 2))


def test_float32_values_read_as_people_wrote_them():
    assert read_header(SMALL).metadata["f"] == 1e-5


def test_tables_agree_with_the_gguf_package():
    ours = {number: (kind.block, kind.size) for number, kind in TENSOR_TYPES.items()}
    assert {int(kind): size for kind, size in gguf.GGML_QUANT_SIZES.items()}.items() <= ours.items()
    for kind in gguf.LlamaFileType:
        assert kind.name == "GUESSED" or kind.name.endswith(f"_{FILE_TYPES[int(kind)]}")


def test_long_arrays_are_stepped_over_and_kept_on_demand():
    data = gguf_bytes({"words": ["w"] * 100, "numbers": [7] * 2000, "short": [1, 2], "after": "here"})
    brief, whole = read_header(data), read_header(data, arrays=None)
    assert brief.metadata["words"] == LongArray("string", 100)
    assert brief.metadata["numbers"] == LongArray("i32", 2000)
    assert (brief.metadata["short"], brief.metadata["after"]) == ((1, 2), "here")
    assert whole.metadata["words"] == ("w",) * 100
    assert whole.metadata["numbers"] == (7,) * 2000


def test_a_vocabulary_of_a_quarter_million_is_stepped_over_quickly():
    data = gguf_bytes({"tokenizer.ggml.tokens": [f"token{number}" for number in range(250_000)]})
    started = time.process_time()
    read_header(data)
    assert time.process_time() - started < 0.5


def test_memoryviews_and_maps_are_released_after_reading():
    buffer = bytearray(SMALL)
    read_header(memoryview(buffer))
    buffer.clear()  # fails while anybody holds a view
    assert not buffer


@pytest.mark.parametrize("length", range(len(SMALL) - 64))
def test_a_header_cut_anywhere_says_that_more_is_needed(length: int):
    with pytest.raises(TruncatedError):
        read_header(SMALL[:length])


@given(st.lists(st.tuples(st.integers(0, len(SMALL) - 1), st.integers(0, 255)), min_size=1, max_size=6))
@settings(max_examples=1500, deadline=None)
def test_mutated_bytes_give_a_header_or_a_gguf_error(changes: list[tuple[int, int]]):
    data = bytearray(SMALL)
    for place, value in changes:
        data[place] = value
    try:
        header = read_header(bytes(data))
    except GgufError as error:
        assert str(error)
    else:
        assert isinstance(header, Header)
        assert header.file_size >= 0


@given(st.binary(max_size=300))
@settings(max_examples=500, deadline=None)
def test_any_bytes_after_the_magic_give_a_header_or_a_gguf_error(tail: bytes):
    for version in (2, 3):
        try:
            header = read_header(struct.pack("<4sI", b"GGUF", version) + tail, arrays=None)
        except GgufError as error:
            assert str(error)
        else:
            assert header.file_size >= 0


HUGE = struct.pack("<Q", 1 << 63)
HOSTILE = {
    "string longer than the file": (pair("k", 8, struct.pack("<Q", 1 << 20)), "ends at byte"),
    "string of half the address space": (pair("k", 8, HUGE), "claims"),
    "array of half the address space": (pair("k", 9, struct.pack("<I", 4) + HUGE), "more than"),
    "strings of half the address space": (pair("k", 9, struct.pack("<I", 8) + HUGE), "more than"),
    "array of arrays": (pair("k", 9, struct.pack("<IQ", 9, 1)), "cannot be in an array"),
    "unknown value type": (pair("k", 77, b""), "value type 77"),
    "bad alignment": (pair("general.alignment", 4, struct.pack("<I", 33)), "power of two"),
    "many pairs": (struct.pack("<4sIQQ", b"GGUF", 3, 0, 1 << 40), "more than"),
    "many tensors": (struct.pack("<4sIQQ", b"GGUF", 3, 1 << 40, 0), "more than"),
    "version 1": (struct.pack("<4sI", b"GGUF", 1), "version 1"),
    "big-endian": (struct.pack(">4sI", b"GGUF", 3), "big-endian"),
    "zeros": (bytes(64), "never written"),
    "text": (b"<!DOCTYPE html>", "not a GGUF file"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_headers_are_refused_with_the_reason(name: str):
    data, said = HOSTILE[name]
    with pytest.raises(GgufError, match=said):
        read_header(data)


def test_a_string_array_whose_last_length_overruns_is_truncated():
    tokens = struct.pack("<IQ", 8, 100) + struct.pack("<Q", 0) * 99 + struct.pack("<Q", 1 << 62)
    with pytest.raises(TruncatedError, match="array 'k'"):
        read_header(pair("k", 9, tokens))


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (F32Tensor("w" * 2000, (4,), bytes(16)), "claims 2000 bytes"),
        (F32Tensor("w", (1, 1, 1, 1, 1), bytes(4)), "5 dimensions"),
        (F32Tensor("w", (1 << 40, 1 << 40), b""), "impossible shape"),
    ],
)
def test_impossible_tensors_are_refused(tensor: F32Tensor, said: str):
    with pytest.raises(GgufError, match=said):
        read_header(gguf_bytes({}, [tensor]))


def test_names_that_occur_twice_are_refused():
    twice = [F32Tensor("w", (1,), bytes(4))] * 2
    with pytest.raises(GgufError, match="occurs twice"):
        read_header(gguf_bytes({}, twice))


def test_a_tensor_type_newer_than_the_table_does_not_hide_the_model():
    data = bytearray(SMALL)
    place = data.index(struct.pack("<QQIQ", 4, 2, 0, 0)) + 16
    data[place : place + 4] = struct.pack("<I", 99)
    tensor = read_header(data).tensors[0]
    assert (tensor.type.name, tensor.nbytes, tensor.elements) == ("TYPE_99", 0, 8)
