"""Requests in HTTP/1.1 as bytes: each is one request, whatever a client put into its parts."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # methods and header names, RFC 9110
_WHOLE_WORD = re.compile(WORD + r"\Z")
_TARGET = re.compile(r"[!-~]+\Z")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*\Z")
_FRAMING = frozenset({"content-length", "transfer-encoding"})


def request_bytes(method: str, target: str, headers: Sequence[tuple[str, str]], body: bytes = b"") -> bytes:
    """A whole request.

    ``Host`` is added where missing; framing headers are always ours, whatever ``headers`` says.
    ``ValueError`` when a part holds what would end its line: nothing a client sent can become a second
    request.
    """
    if not body and method in ("GET", "HEAD", "DELETE", "OPTIONS"):
        return _opening(method, target, tuple(headers)) + b"\r\n"
    return request_head(method, target, headers, len(body)) + body


def request_head(
    method: str, target: str, headers: Sequence[tuple[str, str]], length: int | None = None
) -> bytes:
    """The head of a request whose body follows, of ``length`` bytes or, when that is None, in chunks by ``chunk``.

    As ``request_bytes`` otherwise.
    """
    framing = (
        b"Transfer-Encoding: chunked\r\n\r\n" if length is None else b"Content-Length: %d\r\n\r\n" % length
    )
    return _opening(method, target, tuple(headers)) + framing


def chunk(data: bytes) -> bytes:
    """A piece of a chunked body; an empty one ends it."""
    return b"%x\r\n%b\r\n" % (len(data), data)


@functools.lru_cache(maxsize=128)
def _opening(method: str, target: str, headers: tuple[tuple[str, str], ...]) -> bytes:
    """Request line and headers but for the framing; most requests of a day share a handful of them."""
    if not _WHOLE_WORD.match(method) or not _TARGET.match(target):
        raise ValueError(f"no valid request line: {method!r} {target!r}")
    lines = [f"{method} {target} HTTP/1.1"]
    if not any(name.lower() == "host" for name, _ in headers):
        lines.append("Host: localhost")
    for name, value in headers:
        if not _WHOLE_WORD.match(name) or not _VALUE.match(value):
            raise ValueError(f"no valid header: {name!r}: {value!r}")
        if name.lower() not in _FRAMING:
            lines.append(f"{name}: {value}")
    return "\r\n".join((*lines, "")).encode("latin-1")
