"""A connection to a child: requests out, answers in as they come, one after the other.

Reading pauses while the consumer is behind (``BUFFER_LIMIT``), so a slow client slows the engine and fills no memory here.
"""

from __future__ import annotations

import asyncio
import threading
from typing import cast

from llamamgr.supervise.lease import Endpoint
from llamamgr.wire import http1
from llamamgr.wire.errors import PrematureEndError, ProtocolError

BUFFER_LIMIT = 32 * 1024
_READ = 48 * 1024


class AnswerTooLongError(Exception):
    """The child's answer is longer than anybody would read: nothing that asking again would mend."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"its answer is longer than {limit} bytes")


class UpstreamLostError(Exception):
    """The child was not there, went away, or spoke no HTTP, before its answer was complete.

    ``started`` tells whether any byte of an answer had come.
    """

    def __init__(self, why: str, *, started: bool) -> None:
        super().__init__(why)
        self.why = why
        self.started = started


async def connect(endpoint: Endpoint) -> Connection:
    """A new connection; ``UpstreamLostError`` when nobody listens."""
    loop = asyncio.get_running_loop()
    try:
        if endpoint.socket:
            _, protocol = await loop.create_unix_connection(Connection, endpoint.socket)
        else:
            _, protocol = await loop.create_connection(Connection, endpoint.host, endpoint.port)
    except OSError as error:
        raise UpstreamLostError(f"no connection: {error.strerror or error}", started=False) from error
    return protocol


class _Arrivals(threading.local):
    """Where bytes arrive before they are taken: one place for all connections of a thread's loop, since each takes its own at once.

    Left to itself a transport reads a quarter of a megabyte at a time, and with many streams that adds up.
    """

    def __init__(self) -> None:
        self.place = memoryview(bytearray(_READ))


_ARRIVALS = _Arrivals()


class Connection(asyncio.BufferedProtocol):
    """Feeds what arrives to the parser; one reader at a time waits for the head and then for body pieces.

    ``begin`` comes before each request.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._sending: asyncio.Future[None] | None = None
        self._choked = False
        self.begin("GET")

    def begin(self, method: str) -> None:
        """Be ready for the answer to a request of ``method``."""
        self._parser = http1.ResponseParser(method)
        self._head: http1.Head | None = None
        self._pieces: list[bytes] = []
        self._size = 0
        self._paused = False
        self._started = False
        self._end: http1.End | None = None
        self._lost: UpstreamLostError | None = None

    @property
    def answered(self) -> bool:
        """True once a head has come or none will."""
        return self._head is not None or self._lost is not None

    @property
    def is_reusable(self) -> bool:
        """True when the answer is complete and the peer will take another request."""
        transport, end = self._transport, self._end
        if end is None or not end.keep_alive or transport is None or transport.is_closing():
            return False
        return not (self._paused or self._choked or self._parser.surplus)

    def send(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    async def drain(self) -> None:
        """Wait until what was sent has gone out so far that more may follow."""
        if self._choked and self._transport is not None:
            self._sending = self._loop.create_future()
            await self._sending

    async def head(self) -> http1.Head:
        while self._head is None:
            await self._news()
        return self._head

    async def pieces(self) -> list[bytes]:
        """All that has come since the last call, as it came; empty at the end."""
        while not self._pieces:
            if self._end is not None:
                return []
            await self._news()
        pieces, self._pieces = self._pieces, []
        self._size = 0
        self._resume()
        return pieces

    async def body(self, limit: int) -> bytes:
        """All of the body; ``AnswerTooLongError`` when it is longer than ``limit`` bytes."""
        parts: list[bytes] = []
        size = 0
        while pieces := await self.pieces():
            size += sum(map(len, pieces))
            if size > limit:
                raise AnswerTooLongError(limit)
            parts += pieces
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def ask(self, method: str, start: bytes, rest: bytes, limit: int) -> tuple[int, bytes]:
        """Send ``start`` and ``rest``, a whole request; status and body of its answer."""
        self.begin(method)
        self.send(start)
        if rest:
            self.send(rest)
        while self._head is None:
            await self._news()
        if self._end is not None and len(self._pieces) == 1:
            return self._head.status, self._pieces.pop()  # nearly all answers: they came at once
        return self._head.status, await self.body(limit)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    async def _news(self) -> None:
        if self._lost is not None:
            raise self._lost
        self._waiter = self._loop.create_future()
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

    # -- what the transport tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def pause_writing(self) -> None:
        self._choked = True

    def resume_writing(self) -> None:
        self._choked = False
        if self._sending is not None and not self._sending.done():
            self._sending.set_result(None)

    def get_buffer(self, sizehint: int) -> memoryview:
        return _ARRIVALS.place

    def buffer_updated(self, nbytes: int) -> None:
        data = bytes(_ARRIVALS.place[:nbytes])
        self._size += nbytes  # with its framing: what is held back is to be bounded, not weighed
        is_first, self._started = not self._started, True
        try:
            whole = self._parser.whole(data) if is_first else None
            if whole is None:
                self._take(self._parser.feed(data))
            else:
                self._head, body, self._end = whole
                if body:
                    self._pieces.append(body)
        except ProtocolError as error:
            self._take(error.before)
            self._lose(f"it broke the protocol: {error}")
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self.resume_writing()
        if self._lost is None:
            self._close(error)
        self._wake()

    def _close(self, error: Exception | None) -> None:
        try:
            self._take(self._parser.eof())
        except PrematureEndError as premature:
            self._lose(str(error) if error else str(premature))

    def _take(self, events: list[http1.Event] | tuple[object, ...]) -> None:
        for event in events:
            if isinstance(event, http1.Body):
                self._pieces += event.pieces
            elif isinstance(event, http1.Head):
                self._head = event
            elif isinstance(event, http1.End):
                self._end = event
        if self._size > BUFFER_LIMIT and self._pieces and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def _lose(self, why: str) -> None:
        if self._end is None and self._lost is None:
            self._lost = UpstreamLostError(why, started=self._started)
        self.abort()
