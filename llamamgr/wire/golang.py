"""JSON as Go writes and refuses it: Ollama's clients know its texts, and some match them.

Facts: Go encoding/json (HTML escapes, number format, error texts), strconv.Quote, encoding/base64; the
texts are those that a real Ollama answered.
"""

from __future__ import annotations

import binascii
import functools
import re
from collections.abc import Hashable, Mapping, Sequence
from decimal import Decimal
from typing import Any, TypeVar

import msgspec

from llamamgr.wire import go_quote, go_syntax, mistakes
from llamamgr.wire.errors import DialectError
from llamamgr.wire.go_fields import as_go_reads, is_in_capitals

_T = TypeVar("_T")

quote = go_quote.quote
_GENERAL_DIGITS = 6  # strconv.FormatFloat's bound for the shortest form

_HTML = re.compile(rb"[<>&]|\xe2\x80[\xa8\xa9]")
_HTML_TEXT = re.compile("[<>&\u2028\u2029]")
_HTML_ESCAPES = {
    b"<": rb"\u003c",
    b">": rb"\u003e",
    b"&": rb"\u0026",
    b"\xe2\x80\xa8": rb"\u2028",
    b"\xe2\x80\xa9": rb"\u2029",
}
_ILL_TYPED = re.compile(r"Expected `(\w+)[^`]*`, got `(\w+)`(?: - at `\$\.?(.*)`)?")
_MALFORMED = re.compile(r"JSON is malformed: (.*) \(byte (\d+)\)")
_ESCAPE = re.compile(
    rb"\\(?:(?P<pair>u[dD][89abAB]..\\u[dD][c-fC-F]..)|(?P<lone>u[dD][89a-fA-F]..)|.)", re.DOTALL
)

# msgspec's word for what it met → Go's, and for what it expected → Go's type
_VALUES = {"str": "string", "int": "number", "float": "number"}
_TYPES = {"str": "string", "float": "float64", "array": "[]interface {}", "object": "map[string]interface {}"}

# msgspec's complaint → the end of Go's `invalid character 'x' …`
_COMPLAINTS = {
    "object keys must be strings": "looking for beginning of object key string",
    "trailing comma in object": "looking for beginning of object key string",
    "expected ':'": "after object key",
    "expected ',' or '}'": "after object key:value pair",
    "expected ',' or ']'": "after array element",
    "invalid escape character in string": "in string",
    "invalid number": "in numeric literal",
}


def encode(value: object) -> bytes:
    """Compact JSON with Go's HTML escapes."""
    return escape(msgspec.json.encode(value))


def escape(json: bytes) -> bytes:
    """``json`` with ``<``, ``>``, ``&``, U+2028 and U+2029 as escapes; they can occur in strings only."""
    if not _HTML.search(json):
        return json
    return _HTML.sub(lambda match: _HTML_ESCAPES[match[0]], json)


def is_plain(text: str) -> bool:
    """True when ``text`` has none of the characters that ``escape`` is for."""
    return not _HTML_TEXT.search(text)


def number(value: float) -> msgspec.Raw:
    """A float64 as Go writes it: the shortest form, an exponent only below 1e-6 and from 1e21 on."""
    text = repr(float(value))
    mantissa, _, exponent = text.partition("e")
    if exponent and -6 <= int(exponent) < 21:
        text = format(Decimal(text), "f")
    elif exponent:
        text = f"{mantissa.removesuffix('.0')}e{int(exponent):+d}"
    return msgspec.Raw(text.removesuffix(".0").encode())


def general(value: float) -> str:
    """``%v`` of a float64: the shortest form, with an exponent below 1e-4 and from 1e6 on."""
    sign, digits, exponent = Decimal(repr(float(value))).as_tuple()
    shown = "".join(map(str, digits)).rstrip("0") or "0"
    power = len(digits) + int(exponent) - 1
    if shown == "0" or -4 <= power < _GENERAL_DIGITS:
        return bytes(number(value)).decode()
    mantissa = f"{shown[0]}.{shown[1:]}" if len(shown) > 1 else shown
    return f"{'-' * sign}{mantissa}e{'-' if power < 0 else '+'}{abs(power):02d}"


def decode(body: bytes, kind: type[_T], struct: str, types: Mapping[str, str], at: str = "") -> _T:
    """``body`` as ``kind``, all of whose fields have defaults; ``DialectError`` 400 in Go's words, or in those of the package.

    As with Go, what follows the first JSON value is ignored, lone surrogates and broken UTF-8 become
    U+FFFD, ``null`` is an empty object, in a list or a map the zero of its type, and fields are known whatever their case.
    ``struct`` is Go's name of the type, of package ``api`` unless it names another, ``openai`` or ``anthropic``, whose
    clients know other words; ``types`` maps a path (``messages[].content``) to Go's type where it is not the plain one.
    ``at`` is where in a request the body stands, if it is a part of one. An empty body is ``missing request body``.
    """
    return decode_sound(body, kind, struct, types, at)[0]


def decode_sound(
    body: bytes, kind: type[_T], struct: str, types: Mapping[str, str], at: str = ""
) -> tuple[_T, bytes]:
    """As ``decode``, and the bytes it was read from: ``body``, mended where Go would have passed over a fault."""
    if not body.strip():
        raise DialectError(400, "missing request body")
    package = struct.rpartition(".")[0]
    try:
        return _decode(_utf8(body), kind, nulls=not package)
    except (msgspec.DecodeError, RecursionError) as error:
        told = go_syntax.complaint(body)  # of several faults the one of form comes first
        if not told and isinstance(error, msgspec.ValidationError):
            if package:
                raise mistakes.ill_typed(package, str(error), body, at) from None
            raise DialectError(400, _ill_typed(str(error), struct, types, body)) from None
        told = told or _malformed(error, body)
        raise (mistakes.malformed(package, told) if package else DialectError(400, told)) from None


def _utf8(body: bytes) -> bytes:
    """``body`` as UTF-8; strings that are skipped while decoding are not looked at there."""
    if body.isascii():
        return body
    try:
        body.decode()
    except UnicodeDecodeError:
        return body.decode("utf-8", "replace").encode()
    return body


@functools.cache
def _decoder(kind: Hashable) -> msgspec.json.Decoder[Any]:
    """One for each of the few types that requests have."""
    return msgspec.json.Decoder(kind)


def _decode(body: bytes, kind: type[_T], *, nulls: bool) -> tuple[_T, bytes]:
    """``nulls`` may stand for any zero, as Go has it; clients of other APIs are told that they mean nothing.

    Those write names in capitals for all fields or none, so that their bodies, which are long, need not be looked through.
    """
    decoder: msgspec.json.Decoder[_T] = _decoder(kind)  # type: ignore[arg-type]  # types are hashable
    try:
        value = decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        repaired = _repaired(body, str(error))
        if repaired == body and nulls and "got `null`" in str(error):
            repaired = as_go_reads(body, kind)  # type: ignore[arg-type]
        if repaired == body:
            raise
        return _decode(repaired, kind, nulls=nulls)
    if (nulls or _lacks(value)) and is_in_capitals(body, kind):  # type: ignore[arg-type]
        other = as_go_reads(body, kind, nulls=nulls)  # type: ignore[arg-type]
        return (value, body) if other == body else _decode(other, kind, nulls=nulls)
    return value, body


def _lacks(value: object) -> bool:
    """Whether a request has not said what all say."""
    return any(getattr(value, name, "") is None for name in ("model", "messages"))


def _repaired(body: bytes, complaint: str) -> bytes:
    """``body`` without what Go would have passed over; the same when there is nothing of the kind."""
    if body.strip() == b"null":
        return b"{}"
    match = _MALFORMED.search(complaint)
    if match and match[1] == "trailing characters":
        return body[: int(match[2]) - 1]
    valid = body.decode("utf-8", "replace").encode()
    return _ESCAPE.sub(lambda match: rb"\ufffd" if match["lone"] else match[0], valid)


def _ill_typed(complaint: str, struct: str, types: Mapping[str, str], body: bytes) -> str:
    """What Go 1.27 tells: the type that was decoded, the whole path to the value, and "Go struct field" unless an index ends it."""
    match = _ILL_TYPED.search(complaint)
    if not match:
        return f"json: cannot unmarshal number into Go value of type api.{struct}"
    expected, got = match[1], match[2]
    path = mistakes.place(complaint, body)
    value = _VALUES.get(got, got)
    if (expected, got) == ("int", "float"):
        value = f"number {_literal(body, path)}".rstrip()
    pattern = "".join("[]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")
    kind = types.get(pattern) or _TYPES.get(expected, expected)
    if path[:1] == ["messages"] and len(path) > 1:  # a turn is decoded on its own
        struct, path = "Alias", path[2:]
    if not path:
        return f"json: cannot unmarshal {value} into Go value of type {kind if pattern else f'api.{struct}'}"
    where = "" if isinstance(path[-1], int) else "Go struct field "
    return f"json: cannot unmarshal {value} into {where}{struct}.{'.'.join(map(str, path))} of type {kind}"


def _literal(body: bytes, path: Sequence[str | int]) -> str:
    """What stands at ``path``, as it was sent; Go shows a number that is no integer."""
    inner = body
    try:
        for step in path:
            if isinstance(step, str):
                inner = bytes(msgspec.json.decode(inner, type=dict[str, msgspec.Raw])[step])
            else:
                inner = bytes(msgspec.json.decode(inner, type=list[msgspec.Raw])[step])
    except (msgspec.DecodeError, ValueError, LookupError):
        return ""
    return inner.decode()


def _malformed(error: Exception, body: bytes) -> str:
    """What is told of one too long to be looked through."""
    if isinstance(error, RecursionError):
        return "exceeded max depth"
    match = _MALFORMED.search(str(error))
    if not match:
        return "unexpected EOF"
    at = min(int(match[2]), len(body) - 1)
    shown = go_quote.rune(body[at:])
    return f"invalid character {shown} {_COMPLAINTS.get(match[1], 'looking for beginning of value')}"


def illegal_base64_at(text: str) -> int:
    """Where Go's standard base64 decoder would stop, or -1 when it accepts ``text``.

    Padding is a must, line ends are skipped.
    """
    try:
        binascii.a2b_base64(text.encode("latin-1"), strict_mode=True)
    except (binascii.Error, UnicodeEncodeError):
        return _walk_base64(text.encode())
    return -1


def _walk_base64(text: bytes) -> int:
    body = re.match(rb"[A-Za-z0-9+/\r\n]*", text)
    stop = body.end() if body else 0
    seen = [at for at in range(stop) if text[at] not in b"\r\n"]
    odd = len(seen) % 4
    rest = text[stop:].translate(None, b"\r\n")
    if not rest:
        # Go names the start of the quantum that is not whole
        return seen[-odd] if odd else -1
    if rest[:1] != b"=" or odd < 2:
        return stop
    padding = b"=" * (4 - odd)
    if rest == padding:
        return -1
    if padding.startswith(rest):
        return len(text)
    return stop + len(text[stop:]) - len(text[stop:].lstrip(b"=\r\n"))
