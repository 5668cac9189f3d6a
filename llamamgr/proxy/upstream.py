"""One exchange with a child: a fresh connection, one request out, one answer in as it comes.

Each exchange has a connection of its own. llama-server closes after each stream, after 100 requests and after 5 idle seconds
(facts: llama.cpp §1.5), so a kept connection may be stale at the moment it is used, and a generation that got lost on it could
not be told from one that was begun. A fresh connection to a UNIX socket costs some 50 µs.

Reading pauses while the consumer is behind (``BUFFER_LIMIT``), so a slow client slows the engine and fills no memory here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import cast

from llamamgr.supervise.lease import Endpoint
from llamamgr.wire import http1
from llamamgr.wire.errors import PrematureEndError, ProtocolError

BUFFER_LIMIT = 256 * 1024
ANSWER_LIMIT = 64 * 1024 * 1024


class UpstreamLostError(Exception):
    """The child was not there, went away, or spoke no HTTP, before its answer was complete.

    ``started`` tells whether any byte of an answer had come.
    """

    def __init__(self, why: str, *, started: bool) -> None:
        super().__init__(why)
        self.why = why
        self.started = started


class Exchange:
    """The answer of a child: ``status`` and ``headers`` at once, the body by ``async for`` (never empty pieces) or ``read``.

    Both raise ``UpstreamLostError`` when the body ends before its time.
    """

    def __init__(self, connection: _Connection, head: http1.Head) -> None:
        self._connection = connection
        self.status = head.status
        self.headers = head.headers

    def header(self, name: str) -> str:
        """The first value of a header (``name`` in lower case), or an empty string."""
        return next((value for key, value in self.headers if key == name), "")

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        data = await self._connection.body()
        if not data:
            raise StopAsyncIteration
        return data

    async def read(self, limit: int = ANSWER_LIMIT) -> bytes:
        """All of the body; ``UpstreamLostError`` when it is longer than ``limit`` bytes."""
        parts, size = [], 0
        async for part in self:
            size += len(part)
            if size > limit:
                raise UpstreamLostError(f"its answer is longer than {limit} bytes", started=True)
            parts.append(part)
        return b"".join(parts)


@asynccontextmanager
async def open_exchange(
    endpoint: Endpoint,
    method: str,
    path: str,
    headers: Sequence[tuple[str, str]] = (),
    body: bytes | AsyncIterable[bytes] = b"",
    length: int | None = None,
) -> AsyncIterator[Exchange]:
    """Send one request and wait for the head of its answer; leaving the block early closes the connection at once.

    A body that comes in pieces is sent as they come, ``length`` bytes in all where that is known. ``UpstreamLostError`` when
    nobody listens or the connection ends before a head came.
    """
    key = [("Authorization", f"Bearer {endpoint.api_key}")] if endpoint.api_key else []
    all_headers = [*headers, *key, ("Connection", "close")]
    if isinstance(body, bytes):
        request = http1.request_bytes(method, path, all_headers, body)
    else:
        request = http1.request_head(method, path, all_headers, length)
    connection = await _connect(endpoint, method)
    try:
        connection.send(request)
        if not isinstance(body, bytes):
            await _send(connection, body, chunked=length is None)
        yield Exchange(connection, await connection.head())
    finally:
        connection.abort()


async def _send(connection: _Connection, body: AsyncIterable[bytes], *, chunked: bool) -> None:
    """Send ``body`` piece by piece, as fast as the child takes it; an answer that comes meanwhile ends it."""
    async for piece in body:
        if connection.answered:
            return
        if piece:
            connection.send(http1.chunk(piece) if chunked else piece)
            await connection.drain()
    if chunked:
        connection.send(http1.chunk(b""))


async def _connect(endpoint: Endpoint, method: str) -> _Connection:
    loop = asyncio.get_running_loop()
    try:
        if endpoint.socket:
            _, protocol = await loop.create_unix_connection(lambda: _Connection(method), endpoint.socket)
        else:
            _, protocol = await loop.create_connection(
                lambda: _Connection(method), endpoint.host, endpoint.port
            )
    except OSError as error:
        raise UpstreamLostError(f"no connection: {error.strerror or error}", started=False) from error
    return protocol


class _Connection(asyncio.Protocol):
    """Feeds what arrives to the parser; one reader at a time waits for the head and then for body pieces."""

    def __init__(self, method: str) -> None:
        self._parser = http1.ResponseParser(method)
        self._transport: asyncio.Transport | None = None
        self._head: http1.Head | None = None
        self._pieces: list[bytes] = []
        self._size = 0
        self._paused = False
        self._started = False
        self._ended = False
        self._lost: UpstreamLostError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    @property
    def answered(self) -> bool:
        """True once a head has come or none will."""
        return self._head is not None or self._lost is not None

    async def drain(self) -> None:
        """Wait until what was sent has gone out so far that more may follow."""
        await self._writable.wait()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def send(self, request: bytes) -> None:
        if self._transport is not None:
            self._transport.write(request)

    async def head(self) -> http1.Head:
        while self._head is None:
            await self._news()
        return self._head

    async def body(self) -> bytes:
        """All that has come since the last call; empty at the end."""
        while not self._pieces:
            if self._ended:
                return b""
            await self._news()
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        self._resume()
        return data

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    async def _news(self) -> None:
        if self._lost is not None:
            raise self._lost
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _resume(self) -> None:
        if self._paused and self._transport is not None and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._started = True
        try:
            self._take(self._parser.feed(data))
        except ProtocolError as error:
            self._take(error.before)
            self._lose(f"it broke the protocol: {error}")
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._writable.set()
        if self._lost is None:
            self._close(error)
        self._wake()

    def _close(self, error: Exception | None) -> None:
        try:
            self._take(self._parser.eof())
        except PrematureEndError as premature:
            self._lose(str(error) if error else str(premature))

    def _take(self, events: Sequence[object]) -> None:
        for event in events:
            if isinstance(event, http1.Body):
                self._pieces.append(event.data)
                self._size += len(event.data)
            elif isinstance(event, http1.Head):
                self._head = event
            elif isinstance(event, http1.End):
                self._ended = True
        if self._size > BUFFER_LIMIT and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def _lose(self, why: str) -> None:
        if not self._ended and self._lost is None:
            self._lost = UpstreamLostError(why, started=self._started)
        self.abort()
