"""One exchange with a child, and every way it can be cut short."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from llamamgr.proxy.connection import AnswerTooLongError
from llamamgr.proxy.upstream import BUFFER_LIMIT, UpstreamLostError, open_exchange
from llamamgr.supervise.lease import Endpoint

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@asynccontextmanager
async def peer(path: Path, handler: Handler) -> AsyncIterator[Endpoint]:
    """A server that reads a request's head and then does as ``handler`` says."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_unix_server(serve, path)
    async with server:
        yield Endpoint(socket=str(path))


def answering(*pieces: bytes) -> Handler:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for piece in pieces:
            writer.write(piece)
            await writer.drain()

    return handler


async def read_all(endpoint: Endpoint) -> bytes:
    async with open_exchange(endpoint, "POST", "/x", (), b"{}") as exchange:
        return await exchange.read()


async def test_a_whole_answer_has_status_headers_and_body(folder: Path) -> None:
    handler = answering(b"HTTP/1.1 400 Bad\r\nX-A: 1\r\nContent-Length: 2\r\n\r\nno")
    async with peer(folder / "s", handler) as endpoint, open_exchange(endpoint, "GET", "/") as exchange:
        assert (exchange.status, exchange.header("x-a"), exchange.header("x-b")) == (400, "1", "")
        assert [data async for data in exchange] == [b"no"]


async def test_the_key_of_the_endpoint_is_sent_and_the_request_is_whole(folder: Path) -> None:
    seen: list[bytes] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n") + await reader.readexactly(2))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with peer(folder / "s", handler) as endpoint:
        assert await read_all(Endpoint(socket=endpoint.socket, api_key="k")) == b""
    assert seen[0].startswith(b"POST /x HTTP/1.1\r\n")
    assert b"Authorization: Bearer k\r\n" in seen[0]
    assert seen[0].endswith(b"\r\n\r\n{}")


async def test_nobody_listening_is_a_loss_before_the_start(folder: Path) -> None:
    with pytest.raises(UpstreamLostError) as lost:
        await read_all(Endpoint(socket=str(folder / "none")))
    assert not lost.value.started


@pytest.mark.parametrize(
    ("pieces", "started"),
    [
        ((), False),
        ((b"HTTP/1.1 200",), True),
        ((CHUNKED, b"2\r\nok\r\n"), True),
        ((CHUNKED, b"2\r\nok\r\n", b"zz not hex\r\n"), True),
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort",), True),
        ((b"nonsense\r\n\r\n",), True),
    ],
)
async def test_an_answer_that_ends_early_or_is_garbage_is_a_loss(
    folder: Path, pieces: tuple[bytes, ...], started: bool
) -> None:
    async with peer(folder / "s", answering(*pieces)) as endpoint:
        with pytest.raises(UpstreamLostError) as lost:
            await read_all(endpoint)
    assert lost.value.started is started


async def test_what_came_before_a_loss_is_still_handed_out(folder: Path) -> None:
    handler = answering(CHUNKED, b"2\r\nok\r\n")
    async with peer(folder / "s", handler) as endpoint, open_exchange(endpoint, "GET", "/") as exchange:
        assert await anext(aiter(exchange)) == b"ok"
        with pytest.raises(UpstreamLostError):
            await anext(aiter(exchange))


async def test_leaving_early_closes_the_connection_at_once(folder: Path) -> None:
    gone = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(CHUNKED + b"2\r\nok\r\n")
        assert await reader.read() == b"{}"
        gone.set()

    async with peer(folder / "s", handler) as endpoint:
        async with open_exchange(endpoint, "POST", "/", (), b"{}") as exchange:
            await anext(aiter(exchange))
        await asyncio.wait_for(gone.wait(), 5)


async def test_cancelling_the_wait_for_an_answer_closes_the_connection(folder: Path) -> None:
    asked, gone = asyncio.Event(), asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await reader.read()
        gone.set()

    async with peer(folder / "s", handler) as endpoint, asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(read_all(endpoint))
        await asyncio.wait_for(asked.wait(), 5)
        waiting.cancel()
        await asyncio.wait_for(gone.wait(), 5)
        assert waiting.cancelled()


async def test_a_slow_reader_makes_the_peer_wait(folder: Path) -> None:
    total = 64 * BUFFER_LIMIT
    sent = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        while sent < total:
            writer.write(b"x" * 65536)
            sent += 65536
            await writer.drain()

    async with peer(folder / "s", handler) as endpoint, open_exchange(endpoint, "GET", "/") as exchange:
        before = -1
        while before != sent:  # until the peer makes no progress any more
            before = sent
            await asyncio.sleep(0.05)
        assert sent < total / 4
        size = 0
        async for data in exchange:
            size += len(data)
    assert size == total


async def test_an_answer_beyond_the_limit_is_refused(folder: Path) -> None:
    handler = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n123456789")
    async with peer(folder / "s", handler) as endpoint, open_exchange(endpoint, "GET", "/") as exchange:
        with pytest.raises(AnswerTooLongError, match="longer than 4 bytes"):
            await exchange.read(4)


class Upload:
    """So many pieces of 64 KiB; ``sent`` counts those that were taken."""

    def __init__(self, pieces: int) -> None:
        self.pieces = pieces
        self.sent = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self.sent < self.pieces:
            self.sent += 1
            yield b"x" * 65536


@pytest.mark.parametrize("length", [None, 3 * 65536])
async def test_a_body_in_pieces_is_sent_whole_chunked_or_by_its_length(
    folder: Path, length: int | None
) -> None:
    seen = bytearray()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.extend(await reader.readuntil(b"\r\n\r\n"))
        if length is None:
            while size := int(await reader.readline(), 16):
                seen.extend(await reader.readexactly(size + 2))
        else:
            seen.extend(await reader.readexactly(length))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with (
        peer(folder / "s", handler) as endpoint,
        open_exchange(endpoint, "POST", "/x", (), Upload(3), length) as exchange,
    ):
        assert await exchange.read() == b"ok"
    assert seen.count(b"x" * 65536) == 3


async def test_a_child_that_does_not_read_stops_the_upload(folder: Path) -> None:
    """Without that a fast client would fill this process's memory."""
    upload = Upload(4000)
    over = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()
        writer.transport.abort()

    async with peer(folder / "s", handler) as endpoint:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3), open_exchange(endpoint, "POST", "/x", (), upload):
                pass
        over.set()
    assert upload.sent < 100


async def test_an_answer_that_comes_before_the_end_of_the_body_ends_the_upload(folder: Path) -> None:
    upload = Upload(100_000)

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        while await reader.read(2**20):
            pass

    async with (
        peer(folder / "s", handler) as endpoint,
        open_exchange(endpoint, "POST", "/x", (), upload) as exchange,
    ):
        assert exchange.status == 413
    assert upload.sent < upload.pieces
