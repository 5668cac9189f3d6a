"""The front behind TLS."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import openai
import pytest

from llamamgr.core.config import ServerConfig
from llamamgr.host.tls import load_into, new_context
from tests.fakes.certificates import Pair, make
from tests.proxy.conftest import ANSWER, HI, Front, MakeFront, fronting, serving
from tests.proxy.raw import until, wire
from tests.proxy.test_connections import Flood, patient
from tests.proxy.test_engine_routes import through

CHAT = json.dumps({"model": "tinychat", "messages": HI, "stream": False}).encode()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def context(pair: Pair) -> ssl.SSLContext:
    context = new_context()
    load_into(context, pair.cert, pair.key)
    return context


@pytest.fixture
async def secure(front: Front, context: ssl.SSLContext) -> AsyncIterator[int]:
    """A second port of the same front."""
    async with fronting(front.services, context) as port:
        yield port


async def test_a_bare_client_gets_its_answer_and_keeps_its_connection(secure: int, pair: Pair) -> None:
    async with wire(secure, pair.trusted()) as client:
        for _ in range(3):
            client.ask("POST /api/chat", body=CHAT)
            assert (await client.answer()).json["message"]["content"] == ANSWER


async def test_an_official_client_streams(secure: int, pair: Pair) -> None:
    async with (
        httpx.AsyncClient(verify=pair.trusted()) as http,
        openai.AsyncOpenAI(
            base_url=f"https://localhost:{secure}/v1", api_key="x", http_client=http
        ) as client,
    ):
        stream = await client.chat.completions.create(model="tinychat", messages=HI, stream=True)  # type: ignore[call-overload]
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])
    assert text == ANSWER


async def test_tls_before_1_2_is_refused(secure: int, pair: Pair) -> None:
    old = pair.trusted()
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        async with wire(secure, old):
            pass


async def test_a_new_certificate_is_shown_to_new_connections_and_old_ones_go_on(
    secure: int, pair: Pair, context: ssl.SSLContext, tmp_path: Path
) -> None:
    newer = make(tmp_path, "newer")
    async with wire(secure, pair.trusted()) as before:
        before.ask("GET /")
        assert (await before.answer()).status == 200
        load_into(context, newer.cert, newer.key)
        async with wire(secure, newer.trusted()) as after:
            after.ask("GET /")
            assert (await after.answer()).status == 200
        before.ask("GET /")
        assert (await before.answer()).status == 200
    with pytest.raises(ssl.SSLCertVerificationError):
        async with wire(secure, pair.trusted()):
            pass


async def test_a_handshake_that_does_not_come_is_not_waited_for(secure: int) -> None:
    async with wire(secure) as client:
        assert await client.rest() == b""


async def test_plain_http_gets_no_answer(secure: int) -> None:
    async with wire(secure) as client:
        client.ask("GET /")
        assert b"HTTP/1.1 200" not in await client.rest()


async def test_refusals_reach_a_tls_client(secure: int, pair: Pair) -> None:
    async with wire(secure, pair.trusted()) as client:
        client.send("nonsense\r\n\r\n")
        answer = await client.answer()
        assert (answer.status, answer.headers["connection"]) == (400, "close")


async def test_slow_heads_are_dropped_behind_tls_too(
    make_front: MakeFront, context: ssl.SSLContext, pair: Pair
) -> None:
    async with (
        make_front(server=ServerConfig(head_wait=0.3)) as front,
        fronting(front.services, context) as port,
        wire(port, pair.trusted()) as client,
    ):
        client.send("GET / HT")
        assert (await client.answer()).status == 408
        await client.rest()


async def test_a_client_that_does_not_read_is_dropped_behind_tls_too(
    make_front: MakeFront, context: ssl.SSLContext, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    flood = Flood()
    async with (
        make_front(server=patient(write_wait=0.5)) as front,
        serving(flood.app) as port,
        fronting(front.services, context) as secure,
    ):
        await through(front, monkeypatch, port)
        async with wire(secure, pair.trusted(), limit=1024) as client:
            client.ask("GET /upstream/tinychat/flood")
            async with asyncio.timeout(10):
                await flood.ended.wait()
            await until(lambda: front.children.leases == 0)
            assert front.services.metrics.dropped == {"write": 1}
