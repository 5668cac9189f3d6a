"""The connections of clients: how long each may take, how many there may be, and what those are told that speak no HTTP.

aiohttp waits for ever for a head, a body or a reader, and answers what it cannot parse as plain text. Here one timer looks at all
connections a few times per ``wait``; between its looks a connection costs nothing, whatever passes over it.

============  ==============================================================================================================
``head``      no whole head within ``head_wait`` of the first byte, or of the connection: an absolute deadline, so a trickle is none
``body``      less than ``BODY_PROGRESS`` bytes of a body within ``body_wait``, while we were ready to take more
``write``     not one byte of an answer taken within ``write_wait``, while there was one to take
``full``      beyond ``max_connections``; those that have nothing in flight go first, longest idle first
``protocol``  what came was not HTTP, or its head was too long
============  ==============================================================================================================

A connection that has waited ``idle_wait`` for its next request is closed by aiohttp itself. Whoever is dropped while we work for
him has his handler cancelled, which ends the generation and frees its slot.
"""

from __future__ import annotations

import asyncio
import http
import logging
import secrets
import select
from collections.abc import Awaitable, Callable
from typing import Any, cast

from aiohttp import StreamReader, http_exceptions, web
from aiohttp.http import RawRequestMessage

from llamamgr.core.config import ServerConfig
from llamamgr.proxy import replies
from llamamgr.proxy.answer import SERVER
from llamamgr.proxy.metrics import Metrics
from llamamgr.proxy.moments import http_date
from llamamgr.proxy.shortcuts import Shortcuts

log = logging.getLogger(__name__)

BODY_PROGRESS = 1024
_HEADS = 4  # a whole head may be that many times as long as one line of it
_LOOKS = 8  # per shortest wait
_LONGEST_PAUSE = 1.0
_LINGER = 2.0  # what a client is given to read why it is sent away
_SPARE = 64  # connections that may be told so at once
_GRACE = 1.0  # a connection younger than this is not idle yet


class Connection(web.RequestHandler):
    """One client's connection. Times are the loop's clock."""

    __slots__ = (
        "_body",
        "_front",
        "_head",
        "_head_began",
        "_head_size",
        "_leaving",
        "_read",
        "_taken",
        "_wire",
    )

    def __init__(self, front: FrontServer, **more: Any) -> None:
        super().__init__(front, **more)
        self._front = front
        self._wire: asyncio.Transport | None = None
        self._head = b""  # what has come of a head that is not whole
        self._head_size = 0
        self._head_began = 0.0  # 0: none is on its way
        self._body: StreamReader | None = None
        self._read = _Mark()
        self._taken = _Mark()
        self._leaving = 0.0

    # -- what happens

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._wire = cast("asyncio.Transport", transport)
        super().connection_made(transport)
        self._head_began = self._loop.time()
        self._front.make_room_for(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._wire = None

    def data_received(self, data: bytes) -> None:
        seen = self._request_count
        super().data_received(data)
        come = self._request_count - seen
        if come:
            self._note_requests(come, data)
        elif (self._waiter is not None or not seen) and data and not self._leaving:
            self._note_part(data)

    def resume_reading(self, resume_parser: bool = True) -> None:
        """aiohttp says so after each piece of a body that was read, paused or not, and then parses once more and asks the loop."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def _note_requests(self, come: int, data: bytes) -> None:
        """``come`` requests are complete up to their bodies, or the last of them is none."""
        began, self._head = self._head or data, b""
        self._head_began, self._head_size = 0.0, 0
        if not self._messages:
            return
        message, body = self._messages[-1]
        if isinstance(message, RawRequestMessage):
            self._body = body
            return
        former = self._body
        if come == 1 and former is not None and not former.is_eof():
            self._messages.pop()
            self.drop("protocol", 400, _BAD_BODY)
        elif come == 1:
            self._head = began[:_FIRST_LINE]

    def _note_part(self, data: bytes) -> None:
        if not self._head:
            self._head = data[:_FIRST_LINE]
            self._head_began = self._head_began if not self._request_count else self._loop.time()
        self._head_size += len(data)
        if self._head_size > _HEADS * self.max_field_size:
            self.drop("protocol", 431, _too_long(self.max_field_size))

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """An error that no handler has answered: said on the bare connection, which is over then."""
        if isinstance(exc, http_exceptions.HttpProcessingError):
            self._front.metrics.dropped["protocol"] += 1
            self._say(*_told(exc, self.max_field_size), _path_of(self._head))
        elif not isinstance(exc, ConnectionError) and not self._leaving:
            log.error("a request failed without an answer", exc_info=exc)
            if not request.writer.output_size:
                self._say(500, replies.INTERNAL.message, request.path)
        raise ConnectionError("nothing more is said on this connection")

    def log_exception(self, *args: Any, **more: Any) -> None:
        """A client's broken body has been answered by then; it is no error of ours."""
        if not isinstance(more.get("exc_info"), web.RequestPayloadError):
            log.error(*args, **more)

    def force_close(self) -> None:
        if self._leaving:
            self.transport = None  # closed once its last words are read, or were not for too long
        super().force_close()

    # -- leaving

    @property
    def is_waiting(self) -> bool:
        """Nothing is in flight: the next request has not begun, or is not whole."""
        return self._waiter is not None and not self._waiter.done() and not self._leaving

    @property
    def dispensability(self) -> tuple[bool, float]:
        """Smaller goes first: those that have sent nothing, longest waiting first."""
        return bool(self._head), self._head_began or self._next_keepalive_close_time - self._keepalive_timeout

    def drop(self, reason: str, status: int = 0, message: str = "", retry_after: int = 0) -> None:
        """End it: with an answer, if there is a ``status`` to tell and nothing was said yet, and with what it was working for."""
        self._front.metrics.dropped[reason] += 1
        request = self._current_request
        if status and (request is None or not request.writer.output_size):
            path = request.path if request is not None else _path_of(self._head)
            self._say(status, message, path, retry_after)
        else:
            self.hang_up()
        if request is not None and self._task_handler is not None:
            self._task_handler.cancel()

    def hang_up(self) -> None:
        if self._wire is not None:
            self._wire.abort()

    def _say(self, status: int, message: str, path: str, retry_after: int = 0) -> None:
        """Answer and close. A client that is still sending gets to read it: closing at once would reset the connection."""
        wire = self._wire
        if wire is None or wire.is_closing() or self._leaving:
            return
        self._leaving = self._loop.time()
        self._force_close = True
        if self._waiter is not None:
            self._waiter.cancel()
        wire.write(_answer(status, message, path, retry_after))
        if wire.can_write_eof():
            wire.write_eof()
        else:
            wire.close()

    # -- being looked at

    def look(self, now: float, limits: ServerConfig) -> None:
        """Drop it if its client has been too slow."""
        wire = self._wire
        if wire is None:
            return
        if self._reading_paused and _has_left(wire):  # nothing is read, so nothing tells
            self.hang_up()
        elif self._leaving:
            if now - self._leaving > _LINGER:
                wire.abort()
        elif self._is_unread(wire, now, limits.write_wait):
            self.drop("write")
        elif self.is_waiting:
            if self._head_began and now - self._head_began > limits.head_wait:
                late = _late("head", limits.head_wait)
                self.drop("head", *((408, late) if self._head else ()))
        elif self._is_starved(now, limits.body_wait):
            self.drop("body", 408, _late("body", limits.body_wait))

    def _is_unread(self, wire: asyncio.Transport, now: float, wait: float) -> bool:
        held = wire.get_write_buffer_size()
        if not held:
            self._taken.at = 0.0
            return False
        request = self._current_request
        written = request.writer.output_size if request is not None else 0
        return self._taken.is_stale((self._request_count, written - held), now, wait)

    def _is_starved(self, now: float, wait: float) -> bool:
        body = self._body
        if body is None or body.is_eof() or self._reading_paused or self._buffer_paused:
            self._read.at = 0.0
            return False
        return self._read.is_stale((self._request_count, body.total_raw_bytes // BODY_PROGRESS), now, wait)


class _Mark:
    """How far something had come, and when that was first seen."""

    __slots__ = ("at", "far")

    def __init__(self) -> None:
        self.at = 0.0
        self.far = (0, 0)

    def is_stale(self, far: tuple[int, int], now: float, wait: float) -> bool:
        """It has been ``far`` for longer than ``wait``."""
        if not self.at or far != self.far:
            self.at, self.far = now, far
        return now - self.at > wait


class FrontServer(web.Server):
    """All connections. ``limits`` tells the configuration in force, ``most`` how many the system has descriptors for."""

    def __init__(
        self,
        inner: web.Server,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        limits: Callable[[], ServerConfig],
        metrics: Metrics,
        most: int,
    ) -> None:
        super().__init__(
            handler,
            request_factory=inner.request_factory,
            handler_cancellation=True,
            loop=inner._loop,
            **inner._kwargs,
        )
        self.metrics = metrics
        self._limits = limits
        self._most = most
        self._timer = self._loop.call_soon(self._look)

    def __call__(self) -> Connection:
        limits = self._limits()
        return Connection(
            self,
            loop=self._loop,
            keepalive_timeout=limits.idle_wait,
            max_line_size=limits.header_limit,
            max_field_size=limits.header_limit,
            **self._kwargs,
        )

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        self.metrics.connections += 1

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        self.metrics.connections -= 1

    async def shutdown(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - aiohttp's signature
        self._timer.cancel()
        left = self._all()
        await super().shutdown(timeout)
        for connection in left:
            connection.hang_up()

    def make_room_for(self, newcomer: Connection) -> None:
        """Within the limit all are welcome; beyond it somebody idle goes, or else the newcomer."""
        most = min(self._limits().max_connections, self._most)
        if self.metrics.connections <= most:
            return
        now = self._loop.time()
        idle = [c for c in self._all() if c.is_waiting and now - c.dispensability[1] > _GRACE]
        if idle:
            min(idle, key=lambda connection: connection.dispensability).drop("full")
        elif self.metrics.connections <= most + _SPARE:
            newcomer.drop("full", 503, f"all {most} connections are in use", 1)
        else:
            newcomer.drop("full")

    def _look(self) -> None:
        limits, now = self._limits(), self._loop.time()
        shortest = min(limits.head_wait, limits.body_wait, limits.write_wait)
        self._timer = self._loop.call_later(min(_LONGEST_PAUSE, shortest / _LOOKS), self._look)
        for connection in self._all():
            connection.look(now, limits)

    def _all(self) -> list[Connection]:
        return cast("list[Connection]", self.connections)


class FrontRunner(web.AppRunner):
    """Runs the public application on connections that are watched."""

    def __init__(
        self,
        app: web.Application,
        limits: Callable[[], ServerConfig],
        metrics: Metrics,
        most: int,
        **more: Any,
    ) -> None:
        super().__init__(app, handle_signals=False, access_log=None, handler_cancellation=True, **more)
        self._front = (limits, metrics, most)

    async def _make_server(self) -> web.Server:
        inner = await super()._make_server()
        return FrontServer(inner, Shortcuts(self.app).handle, *self._front)


_GONE = getattr(select, "POLLRDHUP", 0)  # Linux; elsewhere POLLHUP, which always is told, says the same


def _has_left(wire: asyncio.Transport) -> bool:
    """The client has closed its side, or the connection broke: asked of the system, whatever lies unread before that."""
    fd = wire.get_extra_info("socket").fileno()
    if fd < 0:
        return True
    poll = select.poll()
    poll.register(fd, _GONE)
    return bool(poll.poll(0))


# -- last words

_FIRST_LINE = 2048
_BAD_BODY = "the body is not well-formed: its chunks cannot be told apart"


def _told(error: http_exceptions.HttpProcessingError, limit: int) -> tuple[int, str]:
    """Status and sentence for what the parser did not take; nothing of what was sent is repeated."""
    match error:
        case http_exceptions.LineTooLong():
            return 431, _too_long(limit)
        case http_exceptions.InvalidHeader():
            return 400, "a header is not well-formed"
        case http_exceptions.ContentEncodingError():
            return 415, "a body may be compressed as gzip, deflate or zstd, or not at all"
        case http_exceptions.InvalidURLError():
            return 400, "the request's target is no path"
    said = error.message.partition("\n")[0].rstrip(":")
    if said.startswith("Too many headers"):
        return 431, "the request has too many headers"
    if "HTTPS" in said:
        return 400, "this port speaks HTTP, not HTTPS: use an http:// address"
    return 400, f"the request is not well-formed HTTP: {said}"


def _too_long(limit: int) -> str:
    return f"the request's head is too long: a line may have {limit} bytes, the whole {_HEADS * limit}"


def _late(part: str, wait: float) -> str:
    return f"the request's {part} was not received within {wait:g} s"


def _path_of(head: bytes) -> str:
    """The path in the first line of a request, as far as there is one."""
    words = head.lstrip(b"\r\n").partition(b"\r\n")[0].split(b" ")
    return words[1].partition(b"?")[0].decode("latin-1") if len(words) > 1 else ""


def _answer(status: int, message: str, path: str, retry_after: int) -> bytes:
    body, content_type = replies.error_body(path, status, message)
    again = f"Retry-After: {retry_after}\r\n" if retry_after else ""
    head = (
        f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}\r\n"
        f"Server: {SERVER}\r\n"
        f"Date: {http_date()}\r\n"
        f"X-Request-Id: {secrets.token_hex(8)}\r\n"
        f"Content-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\n"
        f"{again}Connection: close\r\n\r\n"
    )
    return head.encode() + body
