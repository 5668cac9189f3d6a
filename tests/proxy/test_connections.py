"""Clients that are slow, silent or many: what they hold is theirs for a bounded time only."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from llamamgr.core.config import ServerConfig
from llamamgr.proxy import connections
from llamamgr.wire.responses_memory import Remembered
from tests.fakes.fake_llama_server import ENDLESS
from tests.proxy.conftest import Front, MakeFront, serving
from tests.proxy.raw import Wire, until, wire
from tests.proxy.test_engine_routes import through

GENERATE = json.dumps({"model": "tinychat", "prompt": "hi", "stream": False}).encode()
FOREVER = json.dumps({"model": "tinychat", "prompt": ENDLESS}).encode()
HEAD = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n\r\n"


@contextlib.asynccontextmanager
async def trickling(client: Wire, data: bytes, pause: float = 0.02) -> AsyncIterator[None]:
    """Send ``data`` again and again, ``pause`` seconds between two pieces, as long as the block lasts."""

    async def trickle() -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                client.send(data)
                await client.writer.drain()
                await asyncio.sleep(pause)

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(trickle())
        yield
        task.cancel()


def patient(**waits: float) -> ServerConfig:
    """Limits that no test reaches, but for those given."""
    return ServerConfig(
        **{"head_wait": 60.0, "body_wait": 60.0, "write_wait": 60.0, "idle_wait": 60.0, **waits}
    )


# -- heads


async def test_a_head_that_trickles_has_an_absolute_deadline(make_front: MakeFront) -> None:
    async with make_front(server=patient(head_wait=0.4)) as front, wire(front.port) as client:
        client.send("GET /v1/models HTTP/1.1\r\nHost: localhost\r\nA: ")
        async with trickling(client, b"x"):
            answer = await client.answer()
            assert (answer.status, answer.headers["connection"]) == (408, "close")
            assert "0.4 s" in answer.json["error"]["message"]
            await client.rest()
        assert front.services.metrics.dropped == {"head": 1}


async def test_a_connection_that_says_nothing_is_closed_without_a_word(make_front: MakeFront) -> None:
    async with make_front(server=patient(head_wait=0.2)) as front, wire(front.port) as client:
        assert await client.rest() == b""
        assert front.services.metrics.dropped == {"head": 1}


async def test_a_second_head_has_its_deadline_from_its_first_byte(make_front: MakeFront) -> None:
    async with make_front(server=patient(head_wait=0.3)) as front, wire(front.port) as client:
        client.ask("GET /")
        assert (await client.answer()).status == 200
        await asyncio.sleep(0.6)  # idle for longer than a head may take
        client.ask("GET /")
        assert (await client.answer()).status == 200
        client.send("GET / HT")
        assert (await client.answer()).status == 408


async def test_an_idle_connection_is_closed_without_a_word(make_front: MakeFront) -> None:
    async with make_front(server=patient(idle_wait=0.2)) as front, wire(front.port) as client:
        client.ask("GET /")
        assert (await client.answer()).status == 200
        assert await client.rest() == b""


async def test_a_connection_at_work_is_not_idle(make_front: MakeFront) -> None:
    async with make_front(server=patient(idle_wait=0.2, head_wait=0.2)) as front, wire(front.port) as client:
        client.ask("POST /api/generate", body=FOREVER)
        started = time.monotonic()
        while time.monotonic() - started < 0.8:
            assert await client.reader.read(65536)
        assert not front.services.metrics.dropped


# -- bodies


async def test_a_body_that_stalls_is_408_in_the_dialect_and_its_request_ends(make_front: MakeFront) -> None:
    async with make_front(server=patient(body_wait=0.3)) as front, wire(front.port) as client:
        client.send(HEAD + '{"model":')
        answer = await client.answer()
        assert (answer.status, answer.headers["connection"]) == (408, "close")
        assert answer.json["error"]["type"] == "invalid_request_error"
        assert await client.rest() == b""
        assert front.services.metrics.dropped == {"body": 1}
        route = front.services.metrics.routes["/v1/chat/completions"]
        await until(lambda: route.in_flight == 0)


async def test_a_body_that_trickles_is_as_good_as_none(make_front: MakeFront) -> None:
    async with make_front(server=patient(body_wait=0.4)) as front, wire(front.port) as client:
        client.send(HEAD)
        async with trickling(client, b" "):
            assert (await client.answer()).status == 408


async def test_a_body_that_comes_slowly_but_surely_is_waited_for(make_front: MakeFront) -> None:
    padded = GENERATE + b" " * 20_000
    async with make_front(server=patient(body_wait=1.2)) as front, wire(front.port) as client:
        client.send(
            f"POST /api/generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(padded)}\r\n\r\n"
        )
        for at in range(0, len(padded), 1500):
            client.send(padded[at : at + 1500])
            await asyncio.sleep(0.15)  # 2.1 s in all
        assert (await client.answer()).status == 200
        assert not front.services.metrics.dropped


async def test_a_body_on_its_way_to_an_engine_that_stalls_frees_its_lease(
    make_front: MakeFront, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_LINGER", 60.0)  # at once, and not when the connection ends
    async with make_front(server=patient(body_wait=0.5)) as front, wire(front.port) as client:
        client.send(
            "POST /upstream/tinychat/tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{"
        )
        await until(lambda: front.children.leases == 1)
        assert (await client.answer()).status == 408
        await until(lambda: front.children.leases == 0)


async def test_a_body_that_we_do_not_take_is_not_the_clients_fault(
    make_front: MakeFront, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = asyncio.Event()

    async def slow(request: web.Request) -> web.Response:
        await gate.wait()
        return web.json_response({"size": len(await request.read())})

    app = web.Application(client_max_size=2**30)
    app.router.add_post("/slow", slow)
    async with (
        make_front(server=patient(body_wait=0.2)) as front,
        serving(app) as port,
        wire(front.port) as client,
    ):
        await through(front, monkeypatch, port)
        size = 30_000_000  # more than all buffers on the way hold
        client.ask("POST /upstream/tinychat/slow", f"Content-Length: {size}")
        sending = asyncio.get_running_loop().create_task(send_zeros(client, size))
        await until(lambda: front.children.leases == 1)
        await asyncio.sleep(1.0)
        gate.set()
        assert (await client.answer()).json == {"size": size}
        await sending


async def send_zeros(client: Wire, size: int) -> None:
    for _ in range(size // 100_000):
        client.send(bytes(100_000))
        await client.writer.drain()


async def test_a_client_that_leaves_while_its_body_waits_to_be_read_is_noticed(make_front: MakeFront) -> None:
    """Nothing is read of a body that is passed on as it comes while its engine is not there yet."""
    head = (
        "POST /upstream/tinychat/v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: 600000\r\n\r\n"
    )
    limits = patient(head_wait=0.4)
    async with make_front(server=limits) as front, front.children._lock, wire(front.port) as client:
        client.send(head.encode() + b"x" * 600_000)
        metrics = front.services.metrics
        await until(lambda: metrics.connections == 1)
        client.writer.close()  # in order
        await until(lambda: metrics.connections == 0)
        assert front.children.leases == 0 and not front.children.granted, "no engine was ever there"


# -- answers


class Flood:
    """An engine that answers without end, and notices when nobody wants it any more."""

    def __init__(self) -> None:
        self.sent = 0
        self.ended = asyncio.Event()
        self.app = web.Application()
        self.app.router.add_get("/flood", self.flood)

    async def flood(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(bytes(65536))
                self.sent += 65536
        finally:
            self.ended.set()


async def test_a_client_that_does_not_read_loses_its_answer_and_the_engine_is_free(
    make_front: MakeFront, monkeypatch: pytest.MonkeyPatch
) -> None:
    flood = Flood()
    async with make_front(server=patient(write_wait=0.5)) as front, serving(flood.app) as port:
        await through(front, monkeypatch, port)
        async with wire(front.port, limit=1024) as client:
            client.ask("GET /upstream/tinychat/flood")
            async with asyncio.timeout(10):
                await flood.ended.wait()
            await until(lambda: front.children.leases == 0)
            assert front.services.metrics.dropped == {"write": 1}
            assert front.services.metrics.connections == 0


async def test_a_client_that_reads_on_keeps_its_answer(
    make_front: MakeFront, monkeypatch: pytest.MonkeyPatch
) -> None:
    flood = Flood()
    async with make_front(server=patient(write_wait=0.4)) as front, serving(flood.app) as port:
        await through(front, monkeypatch, port)
        async with wire(front.port, limit=1024) as client:
            client.ask("GET /upstream/tinychat/flood")
            started = time.monotonic()
            while time.monotonic() - started < 1.5:
                assert await client.reader.readexactly(4_000_000)
                await asyncio.sleep(0.1)
        assert not front.services.metrics.dropped


async def test_a_whole_answer_that_is_fetched_slowly_but_surely_arrives(make_front: MakeFront) -> None:
    whole = b'"%s"' % (b"x" * 20_000_000)
    async with make_front(server=patient(write_wait=1.2)) as front:
        front.services.answers.keep("resp_1", Remembered(whole, ()))
        async with wire(front.port, limit=1024) as client:
            client.ask("GET /v1/responses/resp_1")
            await client.reader.readuntil(b"\r\n\r\n")
            for _ in range(10):
                await client.reader.readexactly(2_000_000)
                await asyncio.sleep(0.2)  # 2 s in all
        assert not front.services.metrics.dropped


async def test_an_answer_that_nobody_fetches_does_not_keep_its_connection(make_front: MakeFront) -> None:
    """The handler is long done when the client has still not read what it got."""
    async with make_front(server=patient(write_wait=0.3, idle_wait=0.1)) as front:
        async with wire(front.port, limit=1024) as client:
            while not front.services.metrics.dropped:
                for _ in range(200):
                    client.ask("GET /metrics")
                await asyncio.sleep(0.05)
                if client.writer.is_closing():
                    break
            await until(lambda: front.services.metrics.connections == 0)
        assert front.services.metrics.dropped == {"write": 1}


# -- many


async def test_beyond_the_limit_the_longest_idle_goes_first(
    make_front: MakeFront, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_GRACE", 0.01)
    async with (
        make_front(server=patient(max_connections=2)) as front,
        wire(front.port) as first,
        wire(front.port) as second,
    ):
        for client in (first, second):
            client.ask("GET /")
            await client.answer()
            await asyncio.sleep(0.05)
        async with wire(front.port) as third:
            third.ask("GET /")
            assert (await third.answer()).status == 200
            assert await first.rest() == b""
            second.ask("GET /")
            assert (await second.answer()).status == 200
    assert front.services.metrics.dropped == {"full": 1}


async def test_when_all_are_at_work_a_newcomer_is_told_so(make_front: MakeFront) -> None:
    async with make_front(server=patient(max_connections=1)) as front, wire(front.port) as busy:
        busy.ask("POST /api/generate", body=FOREVER)
        assert (await busy.reader.read(100)).startswith(b"HTTP/1.1 200")
        async with wire(front.port) as newcomer:
            newcomer.ask("GET /")
            answer = await newcomer.answer()
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")
            assert answer.json == {"error": "all 1 connections are in use"}
            await newcomer.rest()
        assert await busy.reader.read(100)
        assert front.services.metrics.dropped == {"full": 1}


async def test_a_limit_that_is_changed_is_in_force_at_once(make_front: MakeFront) -> None:
    async with make_front(server=ServerConfig(head_wait=3600)) as front, wire(front.port) as client:
        front.services.config = type(front.services.config)(server=ServerConfig(head_wait=0.2))
        await client.rest()
        assert front.services.metrics.dropped == {"head": 1}


async def test_nothing_is_left_of_connections_that_have_gone(front: Front) -> None:
    for _ in range(20):
        async with wire(front.port) as client:
            client.ask("GET /")
            await client.answer()
            assert front.services.metrics.connections > 0
    await until(lambda: front.services.metrics.connections == 0)
    assert not front.services.metrics.dropped
