"""Texts between quotes as Go shows them (source: Go strconv.Quote, strconv.QuoteRune, encoding/json/internal/jsonwire)."""

from __future__ import annotations

import unicodedata

_NAMED = {
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
    "\\": "\\\\",
}


def quote(text: bytes) -> str:
    """``%q``: between double quotes; what cannot be printed is escaped, bytes that are no UTF-8 too."""
    return '"' + "".join(_shown(character, '"') for character in _characters(text)) + '"'


def rune(text: bytes) -> str:
    """The first character of ``text`` between single quotes."""
    return f"'{_shown(_characters(text[:4])[0], chr(39))}'"


def backquoted(text: bytes) -> str:
    """Between backquotes, or as ``quote`` where these, blanks or what cannot be printed are in it."""
    told = text.decode("utf-8", "replace")
    if any(one in "`\ufffd" or one.isspace() or not _is_printable(one) for one in told):
        return quote(text)
    return f"`{told}`"


def _characters(text: bytes) -> str:
    """As text, in which lone surrogates stand for bytes that are no UTF-8."""
    return text.decode("utf-8", "surrogateescape")


def _shown(character: str, mark: str) -> str:
    if character == mark:
        return f"\\{mark}"
    if character in _NAMED:
        return _NAMED[character]
    if _is_printable(character):
        return character
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:  # a byte that is no UTF-8
        return f"\\x{number - 0xDC00:02x}"
    if number < 0x80:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def _is_printable(character: str) -> bool:
    """``strconv.IsPrint``: letters, marks, numbers, punctuation, symbols, and of the blanks the plain one."""
    return character == " " or unicodedata.category(character)[0] in "LMNPS"
