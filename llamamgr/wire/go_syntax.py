"""What Go's JSON scanner says of a body that is no JSON (source: Go encoding/json, scanner.go).

Only bodies that were refused come here, and of those the short ones: it looks at every token.
"""

from __future__ import annotations

import re

LONGEST = 64 * 1024  # bytes; some 20 ms

_SPACE = re.compile(rb"[ \t\r\n]*")
_PLAIN = re.compile(rb'[^"\\\x00-\x1f]*')
_HEX = re.compile(rb"[0-9a-fA-F]{0,4}")
_DIGITS = re.compile(rb"[0-9]*")
_LITERALS = {b"t": b"true", b"f": b"false", b"n": b"null"}
_MOST_DEEP = 10_000
_ENDED = "unexpected EOF"


class _Fault(Exception):  # noqa: N818 - of the body, not of ours
    """Where the scanner stops, and what it was in the midst of."""


def complaint(body: bytes) -> str:
    """Go's error text; "" when the first value of ``body`` is sound, or ``body`` is longer than ``LONGEST``."""
    if len(body) > LONGEST:
        return ""
    try:
        _scan(body)
    except _Fault as fault:
        at, where = fault.args
        return f"invalid character {_shown(body[at])} {where}" if at < len(body) else _ENDED
    return ""


def _scan(body: bytes) -> None:
    """Over the first value; ``stack`` has the closing brackets that are due."""
    stack: list[int] = []
    at = _value(body, _skip(body, 0), stack)
    while stack:
        at = _skip(body, at)
        is_object = stack[-1] == ord("}")
        if body[at : at + 1] == b",":
            at = _skip(body, at + 1)
            at = _value(body, _key(body, at) if is_object else at, stack)
        elif at < len(body) and body[at] == stack[-1]:
            stack.pop()
            at += 1
        else:
            raise _Fault(at, "after object key:value pair" if is_object else "after array element")


def _value(body: bytes, at: int, stack: list[int]) -> int:
    """Past a value, or past what opens one, down to the first that opens none; an empty one is left to the caller."""
    while (opening := body[at : at + 1]) in (b"{", b"["):
        stack.append(ord("}" if opening == b"{" else "]"))
        if len(stack) > _MOST_DEEP:
            raise _Fault(at, "exceeded max depth")
        at = _skip(body, at + 1)
        if at < len(body) and body[at] == stack[-1]:
            return at
        at = _key(body, at) if opening == b"{" else at
    return _scalar(body, at)


def _key(body: bytes, at: int) -> int:
    """Past a key and its colon."""
    if body[at : at + 1] != b'"':
        raise _Fault(at, "looking for beginning of object key string")
    at = _skip(body, _string(body, at + 1))
    if body[at : at + 1] != b":":
        raise _Fault(at, "after object key")
    return _skip(body, at + 1)


def _scalar(body: bytes, at: int) -> int:
    first = body[at : at + 1]
    if first == b'"':
        return _string(body, at + 1)
    if first in _LITERALS:
        return _literal(body, at, _LITERALS[first])
    if first == b"-" or first.isdigit():
        return _number(body, at)
    raise _Fault(at, "looking for beginning of value")


def _literal(body: bytes, at: int, word: bytes) -> int:
    for due in word[1:]:
        at += 1
        if body[at : at + 1] != bytes([due]):
            raise _Fault(at, f"in literal {word.decode()} (expecting {_shown(due)})")
    return at + 1


def _string(body: bytes, at: int) -> int:
    while True:
        at = _past(_PLAIN, body, at)
        match body[at : at + 1]:
            case b'"':
                return at + 1
            case b"\\":
                at = _escape(body, at + 1)
            case _:
                raise _Fault(at, "in string literal")


def _escape(body: bytes, at: int) -> int:
    letter = body[at : at + 1]
    if letter == b"u":
        end = _past(_HEX, body, at + 1)
        if end < at + 5:
            raise _Fault(end, "in \\u hexadecimal character escape")
        return end
    if not letter or letter not in b'bfnrt\\/"':
        raise _Fault(at, "in string escape code")
    return at + 1


def _number(body: bytes, at: int) -> int:
    at += body[at : at + 1] == b"-"
    if not body[at : at + 1].isdigit():
        raise _Fault(at, "in numeric literal")
    at = at + 1 if body[at] == ord("0") else _past(_DIGITS, body, at)
    if body[at : at + 1] == b".":
        at = _digits(body, at + 1, "after decimal point in numeric literal")
    if body[at : at + 1] in (b"e", b"E"):
        at += 1
        at = _digits(body, at + (body[at : at + 1] in (b"+", b"-")), "in exponent of numeric literal")
    return at


def _digits(body: bytes, at: int, where: str) -> int:
    end = _past(_DIGITS, body, at)
    if end == at:
        raise _Fault(at, where)
    return end


def _skip(body: bytes, at: int) -> int:
    return _past(_SPACE, body, at)


def _past(pattern: re.Pattern[bytes], body: bytes, at: int) -> int:
    found = pattern.match(body, at)
    return found.end() if found else at


def _shown(byte: int) -> str:
    """``quoteChar``: one byte, as the character of that number."""
    if byte == ord("'"):
        return "'\\''"
    if byte == ord('"'):
        return "'\"'"
    named = {7: "\\a", 8: "\\b", 9: "\\t", 10: "\\n", 11: "\\v", 12: "\\f", 13: "\\r", ord("\\"): "\\\\"}
    shown = named.get(byte) or (chr(byte) if chr(byte).isprintable() else "")
    return f"'{shown}'" if shown else f"'\\x{byte:02x}'" if byte < 0x80 else f"'\\u{byte:04x}'"
