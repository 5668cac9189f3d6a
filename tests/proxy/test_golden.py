"""What a real Ollama answered, asked of us: the same requests in the same order, over a real llama-server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.contract.conftest import real_binary
from tests.golden.replay import DEVIATIONS, Exchange, difference, load
from tests.proxy.conftest import Front, MakeFront

COVERED = (
    "/",
    "/api/version",
    "/api/tags",
    "/api/ps",
    "/api/show",
    "/api/generate",
    "/api/chat",
    "/api/embed",
    "/api/embeddings",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/messages",
)
# models that other endpoints make
ABSENT = ("show-copied", "show-derived", "show-derived2", "chat-derived")
EXCHANGES = [e for e in load() if e.path in COVERED and e.name not in ABSENT]


@pytest.fixture
async def front(make_front: MakeFront, request: pytest.FixtureRequest) -> AsyncIterator[Front]:
    async with make_front(binary=real_binary(request)) as front:
        yield front


async def answer(front: Front, exchange: Exchange) -> tuple[int, str, str]:
    """Status, content type and body, as a plain client of HTTP sees them."""
    reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
    with contextlib.closing(writer):
        headers = {"Host": f"127.0.0.1:{front.port}", "Connection": "close", **exchange.headers}
        body = exchange.body or b""
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(
            f"{exchange.method} {exchange.path} HTTP/1.1\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        raw_head, _, rest = (await reader.read()).partition(b"\r\n\r\n")
    status_line, *lines = raw_head.decode().split("\r\n")
    told = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if told.get("transfer-encoding") == "chunked":
        rest = dechunked(rest)
    elif exchange.method != "HEAD":
        assert len(rest) == int(told.get("content-length", "0"))
    return int(status_line.split()[1]), told.get("content-type", ""), rest.decode()


def dechunked(data: bytes) -> bytes:
    whole = b""
    while True:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            return whole
        whole, data = whole + data[:length], data[length + 2 :]


async def load_embedding_model(front: Front) -> None:
    """When the record was made an embedding request had loaded it."""
    async with front.children.acquire(front.services.index.resolve("tinyembed")):
        pass


@pytest.mark.real
@pytest.mark.parametrize("exchange", EXCHANGES, ids=[e.name for e in EXCHANGES])
async def test_it_answers_as_ollama_did(front: Front, exchange: Exchange) -> None:
    if exchange.name == "ps-loaded":
        await load_embedding_model(front)
        await front.whole("/api/generate", model="tinychat")
    found = difference(exchange, *await answer(front, exchange))
    if exchange.name in DEVIATIONS:
        assert found, f"{exchange.name} does not deviate any more"
    else:
        assert not found, found


def test_every_deviation_is_of_an_exchange_that_exists() -> None:
    assert set(DEVIATIONS) <= {exchange.name for exchange in load()}


def test_the_models_of_the_record_are_those_of_the_tests(models_dir: Path) -> None:
    assert sorted(path.name for path in models_dir.iterdir()) == ["tinychat.gguf", "tinyembed.gguf"]
