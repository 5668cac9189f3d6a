"""The client side of HTTP/1.1, as much as llama-server (cpp-httplib) needs: one request out, one answer in.

A ``ResponseParser`` reads exactly one answer. Its states, each a method that eats bytes and names the next
one::

    head ─┬─ no body ──────────────────────────────► done
          ├─ Content-Length ─► length ─────────────► done
          ├─ chunked ─► size ⇄ chunk ─► trailer ───► done
          └─ neither ─► until_close ── eof ────────► done

A connection that closes in any other state is an error and never a clean end: that is how a crash in
mid-stream is told from a finished answer. Everything that must be held back (head, a chunk's size line,
trailers) is bounded; bodies are passed on as they come. Grammar: RFC 9112; obsolete line folding, bare LF
and doubled framing are refused, since the peer never sends them.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import TypeAlias

import msgspec

from llamamgr.wire.errors import PrematureEndError, ProtocolError
from llamamgr.wire.http1_request import WORD, chunk, request_bytes, request_head

__all__ = [
    "Body",
    "End",
    "Event",
    "Head",
    "PrematureEndError",
    "ProtocolError",
    "ResponseParser",
    "chunk",
    "request_bytes",
    "request_head",
]

_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9]\d\d)(?: ([\t\x20-\x7e\x80-\xff]*))?")
_HEADER = re.compile(rb"(%s):[ \t]*([\t\x20-\x7e\x80-\xff]*)" % WORD.encode())
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")
_LENGTH = re.compile(r"[0-9]{1,18}\Z")
_SHORT_HEAD = 1024  # bytes of a head that is worth remembering


class Head(msgspec.Struct, frozen=True):
    """Status line and headers of an answer; header names are lower-case, in the order they came."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]

    def header(self, name: str, default: str = "") -> str:
        """The first value of a header, ``name`` in lower case."""
        return next((value for key, value in self.headers if key == name), default)


class Body(msgspec.Struct, frozen=True):
    """A part of the body, never empty, in the chunks that it came in."""

    pieces: tuple[bytes, ...]

    @property
    def data(self) -> bytes:
        return self.pieces[0] if len(self.pieces) == 1 else b"".join(self.pieces)


class End(msgspec.Struct, frozen=True):
    """The answer is complete; ``keep_alive``: the peer will take another request on this connection."""

    keep_alive: bool


Event: TypeAlias = Head | Body | End
_LASTING, _LAST = End(True), End(False)


class _Told(msgspec.Struct, frozen=True):
    """What a head says of its body: ``length`` in bytes (-1: nothing), and whether the connection lasts."""

    head: Head
    length: int = -1
    codings: tuple[str, ...] = ()
    keep_alive: bool = False


def _told(block: bytes) -> _Told:
    first, *lines = block.split(b"\r\n")
    match = _STATUS_LINE.fullmatch(first)
    if not match:
        raise ProtocolError(f"malformed status line {first[:80]!r}")
    head = Head(int(match[2]), (match[3] or b"").decode("latin-1"), _headers(lines))
    if head.status == 101:
        raise ProtocolError("the peer switched protocols without being asked")
    if head.status < 200:
        return _Told(head)
    lengths = {value for name, value in head.headers if name == "content-length"}
    if len(lengths) > 1 or not all(_LENGTH.match(value) for value in lengths):
        raise ProtocolError(f"malformed content-length {sorted(lengths)}")
    codings = tuple(value.strip().lower() for name, value in head.headers if name == "transfer-encoding")
    options = {
        word.strip().lower()
        for name, value in head.headers
        if name == "connection"
        for word in value.split(",")
    }
    keep_alive = "close" not in options and (match[1] == b"1" or "keep-alive" in options)
    return _Told(head, int(lengths.pop()) if lengths else -1, codings, keep_alive)


# the heads of one engine's answers differ by hardly more than their lengths
_told_again = functools.lru_cache(maxsize=128)(_told)


@functools.lru_cache(maxsize=1024)
def _size_of(line: bytes) -> int:
    """The size that a chunk's first line tells; the chunks of a stream are of much the same size."""
    match = _SIZE_LINE.fullmatch(line)
    if not match:
        raise ProtocolError(f"malformed chunk size {line[:40]!r}")
    return int(match[1], 16)


def _headers(lines: list[bytes]) -> tuple[tuple[str, str], ...]:
    headers = []
    for line in lines:
        match = _HEADER.fullmatch(line)
        if not match:
            raise ProtocolError(f"malformed header {line[:80]!r}")
        headers.append((match[1].decode("ascii").lower(), match[2].decode("latin-1").rstrip(" \t")))
    return tuple(headers)


class ResponseParser:
    """Reads one answer from any chunking of its bytes.

    ``method`` is the request's (an answer to HEAD has no body). ``max_head`` bounds status line, headers
    and trailers in bytes, ``max_headers`` their number, ``max_line`` a chunk's size line. ``surplus``
    becomes True when bytes follow the end: such a connection must not be used again.
    """

    def __init__(
        self, method: str = "GET", *, max_head: int = 65536, max_headers: int = 128, max_line: int = 4096
    ) -> None:
        self.surplus = False
        self._method = method
        self._max_head = max_head
        self._max_headers = max_headers
        self._max_line = max_line
        self._held = b""
        self._left = 0
        self._keep_alive = False
        self._started = False
        self._events: list[Event] = []
        self._parts: list[bytes] = []
        # a function and not a method: a parser that held itself would wait, with all that came last, for the garbage collector
        self._state: Callable[[ResponseParser, bytes], bytes] = ResponseParser._head

    @property
    def done(self) -> bool:
        """True once ``End`` has been told."""
        return self._state is ResponseParser._done

    def whole(self, data: bytes) -> tuple[Head, bytes, End] | None:
        """The answer that these first bytes hold all of, no more and no less; None when they must be fed.

        Small answers come like this, and cost half of what the states would.
        """
        stop = data.find(b"\r\n\r\n", 0, _SHORT_HEAD)
        if stop < 0 or self._started or data.count(b"\r\n", 0, stop) > self._max_headers:
            return None
        told = _told_again(data[:stop])
        if told.length != len(data) - stop - 4 or told.codings or told.head.status < 200:
            return None
        if self._method == "HEAD" or told.head.status in (204, 304):
            return None
        self._started = True
        self._state = ResponseParser._done
        return told.head, data[stop + 4 :], _LASTING if told.keep_alive else _LAST

    def feed(self, data: bytes) -> list[Event]:
        """The events that these bytes complete; of the body one for each call.

        ``ProtocolError`` when they break the rules.
        """
        self._started = self._started or bool(data)
        rest = self._held + data if self._held else data
        self._held = b""
        events = self._events = []
        try:
            while rest:
                rest = self._state(self, rest)
        except ProtocolError as error:
            self._flush()
            error.before = tuple(events)
            raise
        self._flush()
        self._events = []
        return events

    def eof(self) -> list[Event]:
        """The peer closed: the end of an answer without framing, ``PrematureEndError`` for an unfinished
        one.
        """
        if self._state is ResponseParser._until_close:
            self._events = []
            self._finish()
            return self._events
        if self._state is ResponseParser._done:
            return []
        where = (
            "in the middle of the body"
            if self._state is not ResponseParser._head
            else "before the answer"
            if not self._started
            else "in the head"
        )
        raise PrematureEndError(f"connection closed {where}", started=self._started)

    # Each state below takes all the bytes there are, and returns those that belong to the next state. It
    # puts what it cannot use yet into _held and returns nothing.

    def _head(self, data: bytes) -> bytes:
        block, rest = self._block(data)
        if block is None:
            return b""
        if block.count(b"\r\n") > self._max_headers:
            raise ProtocolError(f"more than {self._max_headers} headers")
        told = _told_again(block) if len(block) <= _SHORT_HEAD else _told(block)
        if told.head.status >= 200:
            self._events.append(told.head)
            self._frame(told)
        return rest

    def _frame(self, told: _Told) -> None:
        """Choose how the body ends (RFC 9112 §6.3)."""
        self._keep_alive = told.keep_alive
        if self._method == "HEAD" or told.head.status in (204, 304):
            self._finish()
        elif told.codings:
            if told.codings != ("chunked",) or told.length >= 0:
                length = f", content-length {told.length}" if told.length >= 0 else ""
                raise ProtocolError(f"unknown framing: transfer-encoding {', '.join(told.codings)}{length}")
            self._state = ResponseParser._size
        elif told.length >= 0:
            self._left = told.length
            self._state = ResponseParser._length
            if not self._left:
                self._finish()
        else:
            self._keep_alive = False
            self._state = ResponseParser._until_close

    def _length(self, data: bytes) -> bytes:
        piece, rest = (data, b"") if len(data) <= self._left else (data[: self._left], data[self._left :])
        self._left -= len(piece)
        self._parts.append(piece)
        if not self._left:
            self._finish()
        return rest

    def _until_close(self, data: bytes) -> bytes:
        self._parts.append(data)
        return b""

    def _size(self, data: bytes) -> bytes:
        """All whole chunks that there are, then the start of an unfinished one: the hot loop of streaming."""
        at, end, take, find, line = 0, len(data), self._parts.append, data.find, self._max_line
        while at < end:
            stop = find(b"\r\n", at, at + line)
            if stop < 0:
                if end - at >= self._max_line:
                    raise ProtocolError("chunk size line too long")
                self._held = data[at:]
                return b""
            size, start = _size_of(data[at:stop]), stop + 2
            if not size:
                self._state = ResponseParser._trailer
                # the empty line that ends the trailers may be the one that ends the size line
                return b"\r\n" + data[start:]
            at = start + size
            if at + 2 > end:
                self._left = size
                self._state = ResponseParser._chunk
                return data[start:]
            take(data[start:at])
            if not data.startswith(b"\r\n", at):
                raise ProtocolError("a chunk is longer than its size")
            at += 2
        return b""

    def _chunk(self, data: bytes) -> bytes:
        """The rest of one chunk and the line end after it, of which ``_left`` counts only the first."""
        piece = data[: self._left]
        self._left -= len(piece)
        if piece:
            self._parts.append(piece)
        rest = data[len(piece) :]
        if not rest:
            return b""
        if len(rest) == 1:
            if rest != b"\r":
                raise ProtocolError("a chunk is longer than its size")
            return self._hold(rest)
        if rest[:2] != b"\r\n":
            raise ProtocolError("a chunk is longer than its size")
        self._state = ResponseParser._size
        return rest[2:]

    def _trailer(self, data: bytes) -> bytes:
        block, rest = self._block(data)
        if block is None:
            return b""
        if block:
            trailers = block.split(b"\r\n")[1:]
            if len(trailers) > self._max_headers:
                raise ProtocolError(f"more than {self._max_headers} headers")
            _headers(trailers)
        self._finish()
        return rest

    def _done(self, data: bytes) -> bytes:
        self.surplus = True
        return b""

    def _hold(self, data: bytes) -> bytes:
        self._held = data
        return b""

    def _block(self, data: bytes) -> tuple[bytes | None, bytes]:
        """Lines up to an empty one, and what follows it; None while the empty line has not come."""
        stop = data.find(b"\r\n\r\n", 0, self._max_head)
        if stop >= 0:
            return data[:stop], data[stop + 4 :]
        if len(data) >= self._max_head:
            raise ProtocolError(f"head longer than {self._max_head} bytes")
        self._hold(data)
        return None, b""

    def _flush(self) -> None:
        if self._parts:
            self._events.append(Body(tuple(self._parts)))
            self._parts = []

    def _finish(self) -> None:
        self._flush()
        self._events.append(End(self._keep_alive))
        self._state = ResponseParser._done
