"""What a real Ollama answered about models it was told to make, asked of us: each exchange after those it builds on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from llamamgr.core.config import RegistryConfig
from tests.contract.conftest import real_binary
from tests.fakes import registry
from tests.fakes.registry import FakeRegistry
from tests.golden.replay import DEVIATIONS, Exchange, difference, load
from tests.proxy.conftest import Front, MakeFront
from tests.proxy.test_golden import answer

# exchange → those that must have happened
BEFORE = {
    "show-copied": ("copy",),
    "delete-copied": ("copy",),
    "show-derived": ("create-from",),
    "chat-derived": ("create-from",),
    "delete-derived": ("create-from",),
    "show-derived2": ("create-from-nonstream",),
    "delete-derived2": ("create-from-nonstream",),
    "blob-post": ("blob-post",),  # when it was recorded the blob was there
    "blob-head": ("blob-post",),
    "blob-post-again": ("blob-post",),
    "create-not-gguf": ("blob-post",),
}
PATHS = ("/api/create", "/api/copy", "/api/delete", "/api/blobs")
EXCHANGES = [e for e in load() if e.path.startswith(PATHS) or e.name in BEFORE]


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    with registry.running() as fake:
        yield fake


@pytest.fixture
async def front(
    make_front: MakeFront, fake: FakeRegistry, request: pytest.FixtureRequest
) -> AsyncIterator[Front]:
    config = RegistryConfig(ollama=fake.url, hub=fake.url)
    async with make_front(binary=real_binary(request), registry=config) as front:
        yield front


@pytest.mark.real
@pytest.mark.parametrize("exchange", EXCHANGES, ids=[e.name for e in EXCHANGES])
async def test_it_answers_as_ollama_did(front: Front, exchange: Exchange) -> None:
    for earlier in load(BEFORE.get(exchange.name, ())):
        await answer(front, earlier)
    found = difference(exchange, *await answer(front, exchange))
    if exchange.name in DEVIATIONS:
        assert found, f"{exchange.name} does not deviate any more"
    else:
        assert not found, found


def test_every_exchange_about_models_is_asked() -> None:
    asked = {exchange.name for exchange in EXCHANGES}
    assert set(BEFORE) <= asked
    assert len(asked) == 29
