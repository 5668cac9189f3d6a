"""One exchange with a child: one request out, one answer in as it comes.

An exchange has a connection of its own; only what may be sent twice goes over one that was kept (``ask``). llama-server closes
after each stream, after 100 requests and after 5 idle seconds (cpp-httplib's defaults), so a kept connection may be stale at the
moment it is used, and a request that got lost on it could not be told from one that was begun.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TypeAlias

from llamamgr.proxy.connection import BUFFER_LIMIT, Connection, UpstreamLostError, connect
from llamamgr.proxy.pool import Pool
from llamamgr.supervise.lease import Endpoint
from llamamgr.wire import http1

__all__ = ["ANSWER_LIMIT", "BUFFER_LIMIT", "Exchange", "Pool", "UpstreamLostError", "ask", "open_exchange"]

Headers: TypeAlias = tuple[tuple[str, str], ...]
ANSWER_LIMIT = 64 * 1024 * 1024
_LARGE = 64 * 1024  # bytes of a body that is not worth a copy behind its head


class Exchange:
    """The answer of a child: ``status`` and ``headers`` at once, the body by ``async for`` (never empty pieces) or ``read``.

    Both raise ``UpstreamLostError`` when the body ends before its time.
    """

    def __init__(self, connection: Connection, head: http1.Head) -> None:
        self._connection = connection
        self.status = head.status
        self.headers = head.headers

    def header(self, name: str) -> str:
        """The first value of a header (``name`` in lower case), or an empty string."""
        return next((value for key, value in self.headers if key == name), "")

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        pieces = await self._connection.pieces()
        if not pieces:
            raise StopAsyncIteration
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def pieces(self) -> list[bytes]:
        """What has come of the body since the last time, in the chunks it came in; empty at its end."""
        return await self._connection.pieces()

    async def read(self, limit: int = ANSWER_LIMIT) -> bytes:
        """All of the body; ``AnswerTooLongError`` when it is longer than ``limit`` bytes."""
        return await self._connection.body(limit)


def open_exchange(
    endpoint: Endpoint,
    method: str,
    path: str,
    headers: Headers = (),
    body: bytes | AsyncIterable[bytes] = b"",
    length: int | None = None,
) -> AbstractAsyncContextManager[Exchange]:
    """Send one request and wait for the head of its answer; leaving the block early closes the connection at once.

    A body that comes in pieces is sent as they come, ``length`` bytes in all where that is known. ``UpstreamLostError`` when
    nobody listens or the connection ends before a head came.
    """
    headers = (*_with_key(endpoint, headers), ("Connection", "close"))
    if isinstance(body, bytes):
        start, body = _request(method, path, headers, body)
    else:
        start = http1.request_head(method, path, headers, length)
    return _Opening(endpoint, method, start, body, chunked=length is None)


async def ask(
    pool: Pool, endpoint: Endpoint, method: str, path: str, headers: Headers, body: bytes
) -> tuple[int, bytes]:
    """Status and body of the answer to a request that may be sent twice, over a connection of ``pool`` where there is one.

    ``UpstreamLostError`` as ``open_exchange`` and ``Exchange.read``.
    """
    start, rest = _request(method, path, _with_key(endpoint, headers), body)
    kept = pool.take(endpoint)
    while True:
        connection = kept or await connect(endpoint)
        try:
            answer = await connection.ask(method, start, rest, ANSWER_LIMIT)
        except UpstreamLostError as lost:
            connection.abort()
            if kept is None or lost.started:
                raise
            kept = None  # it was closed while it was kept
        except BaseException:
            connection.abort()
            raise
        else:
            pool.give(endpoint, connection)
            return answer


def _with_key(endpoint: Endpoint, headers: Headers) -> Headers:
    key = endpoint.api_key
    return (*headers, ("Authorization", f"Bearer {key}")) if key else headers


def _request(method: str, path: str, headers: Headers, body: bytes) -> tuple[bytes, bytes]:
    """What is sent first, and what after it."""
    if len(body) > _LARGE:
        return http1.request_head(method, path, headers, len(body)), body
    return http1.request_bytes(method, path, headers, body), b""


class _Opening:
    """``start`` is the head, or the whole request; ``body`` what follows it."""

    def __init__(
        self,
        endpoint: Endpoint,
        method: str,
        start: bytes,
        body: bytes | AsyncIterable[bytes],
        *,
        chunked: bool,
    ) -> None:
        self._endpoint = endpoint
        self._method = method
        self._start = start
        self._body = body
        self._chunked = chunked
        self._connection: Connection | None = None

    async def __aenter__(self) -> Exchange:
        return await self._ask(await connect(self._endpoint))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._connection is not None
        self._connection.abort()

    async def _ask(self, connection: Connection) -> Exchange:
        self._connection = connection
        connection.begin(self._method)
        try:
            connection.send(self._start)
            if not isinstance(self._body, bytes):
                await self._send(connection, self._body)
            elif self._body:
                connection.send(self._body)
            return Exchange(connection, await connection.head())
        except BaseException:
            connection.abort()
            raise

    async def _send(self, connection: Connection, body: AsyncIterable[bytes]) -> None:
        """Send ``body`` piece by piece, as fast as the child takes it; an answer that comes meanwhile ends it."""
        async for piece in body:
            if connection.answered:
                return
            if piece:
                connection.send(http1.chunk(piece) if self._chunked else piece)
                await connection.drain()
        if self._chunked:
            connection.send(http1.chunk(b""))
