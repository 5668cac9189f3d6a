"""``multipart/form-data`` as a client sent it: its fields read, some of them replaced, all other bytes kept.

Grammar: RFC 7578 and RFC 2046 §5.1, as far as clients of transcription endpoints use it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from llamamgr.wire.errors import DialectError

_BOUNDARY = re.compile(r"""boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))""", re.IGNORECASE)
_NAME = re.compile(rb"""content-disposition:[^\r\n]*?[;\s]name="([^"\r\n]*)\"""", re.IGNORECASE)
_FILE = re.compile(rb"content-disposition:[^\r\n]*?[;\s]filename\*?=", re.IGNORECASE)
_MOST_PARTS = 100


class Part(msgspec.Struct, frozen=True):
    """One part: ``raw`` is all of it between two boundaries, ``value`` what follows its headers."""

    name: str
    is_file: bool
    value: bytes
    raw: bytes


class Form(msgspec.Struct, frozen=True):
    """A form; ``boundary`` is without its dashes."""

    boundary: bytes
    parts: tuple[Part, ...]

    def field(self, name: str) -> str:
        """The text of a field, or an empty string."""
        found = (part.value for part in self.parts if part.name == name and not part.is_file)
        return next(found, b"").decode("utf-8", "replace").strip()

    def has_file(self, name: str) -> bool:
        return any(part.is_file and part.name == name and part.value for part in self.parts)

    def with_fields(self, fields: Mapping[str, str]) -> bytes:
        """The form as bytes, with these texts for the fields of these names, which come last."""
        dashes = b"--" + self.boundary
        kept = [dashes + part.raw for part in self.parts if part.name not in fields]
        head = '\r\nContent-Disposition: form-data; name="{}"\r\n\r\n{}\r\n'
        new = [dashes + head.format(name, value).encode() for name, value in fields.items()]
        return b"".join((*kept, *new, dashes, b"--\r\n"))


def parse(content_type: str, body: bytes) -> Form:
    """``DialectError`` 400 for what is no such form."""
    match = _BOUNDARY.search(content_type)
    if "multipart/form-data" not in content_type.lower() or match is None:
        raise DialectError(400, "the body must be multipart/form-data")
    boundary = (match[1] or match[2]).encode("latin-1", "replace")
    pieces = (b"\r\n" + body).split(b"\r\n--" + boundary)
    if len(pieces) < 3 or len(pieces) > _MOST_PARTS + 2 or not pieces[-1].startswith(b"--"):
        raise DialectError(400, "the multipart body is cut off or has no parts")
    return Form(boundary, tuple(_part(piece) for piece in pieces[1:-1]))


def _part(piece: bytes) -> Part:
    head, gap, value = piece.partition(b"\r\n\r\n")
    name = _NAME.search(head)
    if not gap or name is None:
        raise DialectError(400, "a part of the multipart body has no name")
    is_file = _FILE.search(head) is not None
    return Part(name[1].decode("utf-8", "replace"), is_file, value, piece + b"\r\n")
