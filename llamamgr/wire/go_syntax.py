"""What Go says of a body that is no JSON (source: Go 1.27, encoding/json over encoding/json/jsontext, with which Ollama is built).

Only bodies that were refused come here, and of those the short ones: it looks at every token.
"""

from __future__ import annotations

import re

from llamamgr.wire import go_quote

LONGEST = 64 * 1024  # bytes; some 20 ms

_SPACE = re.compile(rb"[ \t\r\n]*")
_PLAIN = re.compile(rb'[^"\\\x00-\x1f]*')
_HEX = re.compile(rb"[0-9a-fA-F]{0,4}")
_DIGITS = re.compile(rb"[0-9]*")
_LITERALS = {b"t": b"true", b"f": b"false", b"n": b"null"}
_MOST_DEEP = 10_000
_ENDED = "unexpected EOF"
_TOO_DEEP = "exceeded max depth"
_IN_STRING = "in string"
_IN_NUMBER = "in numeric literal"


class _Fault(Exception):  # noqa: N818 - of the body, not of ours
    """Where the scanner stops, and what it was in the midst of; ``what`` is told instead where it is not one character."""

    def __init__(self, at: int, where: str, what: bytes = b"") -> None:
        super().__init__()
        self.at = at
        self.where = where
        self.what = what


def complaint(body: bytes) -> str:
    """Go's error text; "" when the first value of ``body`` is sound, or ``body`` is longer than ``LONGEST``."""
    if len(body) > LONGEST:
        return ""
    try:
        _scan(body)
    except _Fault as fault:
        if fault.at >= len(body):
            return _ENDED
        if fault.what:
            return f"invalid escape sequence {go_quote.backquoted(fault.what)} {fault.where}"
        if not fault.where:
            return _TOO_DEEP
        return f"invalid character {go_quote.rune(body[fault.at :])} {fault.where}"
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
            raise _Fault(at, "")
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
            raise _Fault(at, f"in literal {word.decode()} (expecting '{chr(due)}')")
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
                raise _Fault(at, _IN_STRING)


def _escape(body: bytes, at: int) -> int:
    letter = body[at : at + 1]
    if letter == b"u":
        end = _past(_HEX, body, at + 1)
        if end == len(body) < at + 5:
            raise _Fault(end, _IN_STRING)
        if end < at + 5:
            raise _Fault(at - 1, _IN_STRING, body[at - 1 : at + 5])
        return end
    if not letter:
        raise _Fault(at, _IN_STRING)
    if letter not in b'bfnrt\\/"':
        raise _Fault(at - 1, _IN_STRING, body[at - 1 : at + 1])
    return at + 1


def _number(body: bytes, at: int) -> int:
    at += body[at : at + 1] == b"-"
    if not body[at : at + 1].isdigit():
        raise _Fault(at, _IN_NUMBER)
    at = at + 1 if body[at] == ord("0") else _past(_DIGITS, body, at)
    if body[at : at + 1] == b".":
        at = _digits(body, at + 1)
    if body[at : at + 1] in (b"e", b"E"):
        at += 1
        at = _digits(body, at + (body[at : at + 1] in (b"+", b"-")))
    return at


def _digits(body: bytes, at: int) -> int:
    end = _past(_DIGITS, body, at)
    if end == at:
        raise _Fault(at, _IN_NUMBER)
    return end


def _skip(body: bytes, at: int) -> int:
    return _past(_SPACE, body, at)


def _past(pattern: re.Pattern[bytes], body: bytes, at: int) -> int:
    found = pattern.match(body, at)
    return found.end() if found else at
