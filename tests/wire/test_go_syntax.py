"""Go's words for bodies that are no JSON."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamamgr.wire import go_syntax
from llamamgr.wire.errors import DialectError
from llamamgr.wire.ollama_request import parse_chat

KEY = "looking for beginning of object key string"
VALUE = "looking for beginning of value"


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"a": tru}', "'}' in literal true (expecting 'e')"),
        (b'{"a": nulx}', "'x' in literal null (expecting 'l')"),
        (b'{"a": "b\nc"}', "'\\n' in string"),
        (b'{"a": "\x01"}', "'\\x01' in string"),
        (b'{"a": 01}', "'1' after object key:value pair"),
        (b'{"a": -}', "'}' in numeric literal"),
        (b'{"a": 1.}', "'}' in numeric literal"),
        (b'{"a": 1e+}', "'}' in numeric literal"),
        (b'{"a": +1}', f"'+' {VALUE}"),
        (b'{"a" "b"}', "'\"' after object key"),
        (b'{"a": 1 "b"}', "'\"' after object key:value pair"),
        (b'{"a": [1 2]}', "'2' after array element"),
        (b'{"a": [1,]}', f"']' {VALUE}"),
        (b'{"a": {"b": {},}}', f"'}}' {KEY}"),
        (b"{'a': 1}", f"'\\'' {KEY}"),
        (b"{,}", f"',' {KEY}"),
        (b"\xef\xbb\xbf{}", f"'\\ufeff' {VALUE}"),
        (b"\x80", f"'\\x80' {VALUE}"),
        (b"x", f"'x' {VALUE}"),
    ],
)
def test_what_go_stumbles_over_is_told_as_go_tells_it(body: bytes, told: str) -> None:
    assert go_syntax.complaint(body) == f"invalid character {told}"


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (rb'{"a": "\x"}', r"invalid escape sequence `\x` in string"),
        (rb'{"a": "\u12G4"}', r"invalid escape sequence `\u12G4` in string"),
        (rb'{"a": "\u1"}', r"""invalid escape sequence `\u1"}` in string"""),
        (b'{"a": "\\ "}', r"""invalid escape sequence "\\ " in string"""),
        (b"[" * 10_001, "exceeded max depth"),
    ],
)
def test_what_is_no_single_character_is_told_otherwise(body: bytes, told: str) -> None:
    assert go_syntax.complaint(body) == told


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"a',
        b'{"a":',
        b'{"a":1',
        b'{"a":1,',
        b"[1, ",
        b"tr",
        b"-",
        b"1.",
        b"1e",
        b'"\\',
        b'"\\u12',
    ],
)
def test_one_that_ends_too_soon_is_told_so(body: bytes) -> None:
    assert go_syntax.complaint(body) == "unexpected EOF"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON, st.booleans())
def test_json_has_no_fault(value: object, is_wide: bool) -> None:
    text = json.dumps(value, indent=2 if is_wide else None, ensure_ascii=is_wide)
    assert go_syntax.complaint(text.encode()) == ""


@given(JSON, st.data())
def test_it_finds_a_fault_where_another_reader_does(value: object, data: st.DataObject) -> None:
    text = json.dumps(value)
    at = data.draw(st.integers(0, len(text)))
    text = text[:at] + data.draw(st.text('{}[],:"\\-+.eE019tfnu \n\x01', max_size=2)) + text[at + 1 :]
    try:
        json.JSONDecoder().raw_decode(text.lstrip(" \t\r\n"))
    except ValueError:
        assert go_syntax.complaint(text.encode())
    else:
        assert go_syntax.complaint(text.encode()) == "" or _is_cut_number(text)


def _is_cut_number(text: str) -> bool:
    """Python's reader takes a number's sound beginning for the number (``1.``, ``1e``), and what follows for the rest."""
    return "in numeric literal" in go_syntax.complaint(text.encode()) or any(mark in text for mark in ".eE")


@pytest.mark.parametrize("body", [b'{"model": "a\nb"}', b'{"model": 5, "more": "a\nb"}', b'["a\nb"]'])
def test_a_client_is_told_so_before_anything_of_its_kind(body: bytes) -> None:
    with pytest.raises(DialectError) as refused:
        parse_chat(body)
    assert refused.value.message == "invalid character '\\n' in string"


def test_a_long_one_is_not_looked_through() -> None:
    body = b'{"model": "m", "more": [' + b"1," * 10_000_000 + b"x]}"
    with pytest.raises(DialectError, match="invalid character 'x' looking for beginning of value"):
        parse_chat(body)


def test_one_that_is_too_deep_is_told_so() -> None:
    with pytest.raises(DialectError, match="exceeded max depth"):
        parse_chat(b"[" * 20_000)
