"""Connections that are kept for requests that may be sent twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from llamamgr.proxy import upstream
from llamamgr.proxy.pool import Pool
from llamamgr.proxy.upstream import UpstreamLostError
from llamamgr.supervise.lease import Endpoint

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Peer:
    """Answers each request with ``answer``; ``connections`` counts, ``closed`` is set when one ends from the other side."""

    def __init__(self, path: Path) -> None:
        self.endpoint = Endpoint(socket=str(path))
        self.answer = OK
        self.requests: list[int] = []  # on which connection each came
        self.closed = asyncio.Event()
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(self.writers)
        self.writers.append(writer)
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                self.requests.append(number)
                writer.write(self.answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.closed.set()
        finally:
            writer.close()

    def hang_up(self) -> None:
        for writer in self.writers:
            writer.close()


@asynccontextmanager
async def talking(path: Path) -> AsyncIterator[tuple[Peer, Pool]]:
    peer, pool = Peer(path), Pool()
    async with await asyncio.start_unix_server(peer.serve, path):
        try:
            yield peer, pool
        finally:
            pool.close()


async def ask(peer: Peer, pool: Pool) -> bytes:
    status, body = await upstream.ask(pool, peer.endpoint, "GET", "/", (), b"")
    assert status == 200
    return body


async def test_the_next_request_goes_over_the_connection_of_the_one_before(folder: Path) -> None:
    async with talking(folder / "s") as (peer, pool):
        assert [await ask(peer, pool) for _ in range(3)] == [b"ok"] * 3
        assert peer.requests == [0, 0, 0]


async def test_requests_at_the_same_time_have_connections_of_their_own(folder: Path) -> None:
    async with talking(folder / "s") as (peer, pool):
        await asyncio.gather(*(ask(peer, pool) for _ in range(3)))
        assert sorted(peer.requests) == [0, 1, 2]


async def test_a_request_that_finds_its_connection_closed_is_sent_over_a_new_one(folder: Path) -> None:
    async with talking(folder / "s") as (peer, pool):
        await ask(peer, pool)
        peer.hang_up()  # the other side knows of it at its next turn of the loop, after the request
        assert await ask(peer, pool) == b"ok"
        assert peer.requests[0] == 0
        assert peer.requests[-1] == 1


async def test_a_request_whose_answer_had_begun_is_not_sent_twice(folder: Path) -> None:
    async with talking(folder / "s") as (peer, pool):
        await ask(peer, pool)
        peer.answer = b"HTTP/1.1 nonsense\r\n\r\n"
        with pytest.raises(UpstreamLostError):
            await ask(peer, pool)
        assert peer.requests == [0, 0]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        OK + b"more",
    ],
)
async def test_a_connection_that_the_peer_will_close_or_that_says_too_much_is_not_kept(
    folder: Path, answer: bytes
) -> None:
    async with talking(folder / "s") as (peer, pool):
        peer.answer = answer
        assert [await ask(peer, pool) for _ in range(2)] == [b"ok"] * 2
        assert peer.requests == [0, 1]


async def test_an_answer_that_is_left_early_takes_its_connection_along(folder: Path) -> None:
    async with talking(folder / "s") as (peer, pool):
        peer.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"
        async with asyncio.TaskGroup() as tasks:
            asking = tasks.create_task(ask(peer, pool))
            while not peer.requests:
                await asyncio.sleep(0)
            asking.cancel()
        await asyncio.wait_for(peer.closed.wait(), 5)
        peer.answer = OK
        assert await ask(peer, pool) == b"ok"
        assert peer.requests == [0, 1]


async def test_a_connection_that_nobody_needs_is_closed_soon(folder: Path) -> None:
    async with talking(folder / "s") as (peer, pool):
        await ask(peer, pool)
        await asyncio.wait_for(peer.closed.wait(), 5)  # llama-server itself would wait for 5 s
        assert pool.take(peer.endpoint) is None


async def test_connections_to_a_child_that_stops_are_closed_at_once(folder: Path) -> None:
    async with talking(folder / "s") as (peer, pool):
        await ask(peer, pool)
        pool.forget(peer.endpoint)
        assert pool.take(peer.endpoint) is None
        await asyncio.wait_for(peer.closed.wait(), 0.5)  # sooner than it would be for being idle


async def test_a_closed_pool_keeps_nothing(folder: Path) -> None:
    async with talking(folder / "s") as (peer, pool):
        await ask(peer, pool)
        pool.close()
        await asyncio.wait_for(peer.closed.wait(), 5)
        assert await ask(peer, pool) == b"ok"
        assert await ask(peer, pool) == b"ok"
        assert peer.requests == [0, 1, 2]
