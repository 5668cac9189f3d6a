"""A load generator that costs little: keep-alive connections on hand-written protocols, every answer checked to be complete."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from typing import cast

import msgspec

DEADLINE = 120.0  # seconds that one measurement may take
_TAIL = 512  # bytes: more than the last words of any dialect, and than a chunk's mark
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Question(msgspec.Struct, frozen=True):
    """A request as bytes; ``mark`` is what each chunk of its streamed answer holds once, ``end`` what a good stream ends with."""

    raw: bytes
    mark: bytes = b""
    end: bytes = b""


class Address(msgspec.Struct, frozen=True):
    """Where a contestant listens: a UNIX socket, or a port of loopback."""

    port: int = 0
    socket: str = ""


class Measured(msgspec.Struct, frozen=True):
    """``seconds`` for all of it, ``firsts`` the seconds to each first byte, ``chunks`` how many came."""

    seconds: float
    firsts: list[float]
    chunks: int


class WrongAnswerError(Exception):
    """A contestant did not answer as it should: its figures mean nothing."""


class _Client(asyncio.Protocol):
    """Asks ``left`` times in a row, over one connection for as long as the server keeps it."""

    def __init__(self, question: Question, left: int) -> None:
        self.question = question
        self.left = left
        self.firsts: list[float] = []
        self.chunks = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport | None = None
        self._asked = 0.0
        self._head = b""
        self._size = -1  # of the body; -1 while the head has not come, -2 for chunks
        self._got = 0
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._ask()

    def _ask(self) -> None:
        assert self._transport is not None
        self._head, self._size, self._got, self._tail = b"", -1, 0, b""
        self._asked = time.perf_counter()
        self._transport.write(self.question.raw)

    def data_received(self, data: bytes) -> None:
        if self._size == -1:
            if not self._head:
                self.firsts.append(time.perf_counter() - self._asked)
            data = self._read_head(self._head + data)
        if self._size == -2:
            self._chunks(data)
        elif self._size >= 0:
            self._got += len(data)
            if self._got >= self._size:
                self._answered(data)

    def _read_head(self, data: bytes) -> bytes:
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self._head = data
            return b""
        if not data.startswith(b"HTTP/1.1 200"):
            self._fail(data)
            return b""
        length = _LENGTH.search(data, 0, end + 2)
        self._size = int(length[1]) if length else -2
        return data[end + 4 :]

    def _chunks(self, data: bytes) -> None:
        mark = self.question.mark
        seen = self._tail + data
        # what was in the tail has been counted, but for a mark that only now is whole
        self.chunks += seen.count(mark) - self._tail.count(mark)
        self._tail = seen[-_TAIL:]
        if self._tail.endswith(b"0\r\n\r\n"):
            self._answered(self._tail)

    def _answered(self, last: bytes) -> None:
        if self._size == -2 and self.question.end not in last:
            self._fail(last)
            return
        self.left -= 1
        if self.left > 0:
            self._ask()
        elif not self.done.done():
            self.done.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(_Closed())

    def _fail(self, data: bytes) -> None:
        if not self.done.done():
            self.done.set_exception(WrongAnswerError(data[:500].decode("latin-1")))


class _Closed(Exception):
    """The server closed a connection on which there was more to ask, as llama-server does after a stream."""


async def _ask(address: Address, question: Question, times: int) -> tuple[list[float], int]:
    loop = asyncio.get_running_loop()
    firsts: list[float] = []
    chunks = 0
    while times:
        made = lambda: _Client(question, times)  # noqa: B023, E731 - called before the loop goes on
        if address.socket:
            transport, client = await loop.create_unix_connection(made, address.socket)
        else:
            transport, client = await loop.create_connection(made, "127.0.0.1", address.port)
        try:
            await client.done
        except _Closed:
            if client.left == times:
                raise WrongAnswerError("the connection was closed without an answer") from None
        finally:
            transport.abort()
        firsts += client.firsts[: times - client.left]
        chunks += client.chunks
        times = client.left
    return firsts, chunks


async def measure(address: Address, question: Question, total: int, connections: int) -> Measured:
    """Ask ``total`` times over ``connections`` at once; ``WrongAnswerError`` when an answer is not as it should be."""
    each = max(1, total // connections)
    started = time.perf_counter()
    async with asyncio.timeout(DEADLINE):
        found = await asyncio.gather(*(_ask(address, question, each) for _ in range(connections)))
    seconds = time.perf_counter() - started
    return Measured(seconds, [first for firsts, _ in found for first in firsts], sum(n for _, n in found))


def post(path: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
