"""The front on a loopback port, over children that are real processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import ssl
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from llamamgr.core.config import Config, RegistryConfig, ServerConfig, parse_config
from llamamgr.host.paths import Paths
from llamamgr.models.index import Index
from llamamgr.proxy.app import Services, build_app
from llamamgr.proxy.connections import FrontRunner
from llamamgr.proxy.services import Reloaded
from llamamgr.proxy.site import FrontSite
from tests.fakes import fake_llama_server
from tests.golden import replay
from tests.proxy.children import TestChildren

HI = [{"role": "user", "content": "hi"}]
ANSWER = "Hello from the tiny llama."
NOBODY = "http://127.0.0.1:9"  # no test reaches beyond this machine


ON_BOTH_LOOPS = ("test_connections", "test_http", "test_tls")


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """What depends on how a loop treats its sockets runs on the daemon's own as well."""
    both = item.path.stem in ON_BOTH_LOOPS and sys.platform != "win32"
    if not both:
        return {"asyncio": asyncio.new_event_loop}
    import uvloop

    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


class Front:
    """A running front and a client for it."""

    def __init__(
        self, services: Services, children: TestChildren, session: aiohttp.ClientSession, port: int
    ) -> None:
        self.services = services
        self.children = children
        self.session = session
        self.port = port
        self.stopped: list[bool] = []

    def post(self, path: str, body: Any, **more: Any) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        return self.session.post(path, data=body if isinstance(body, bytes) else json.dumps(body), **more)

    async def whole(self, path: str, **body: Any) -> tuple[int, Any]:
        """Status and JSON of one non-streamed answer."""
        async with self.post(path, {"stream": False, **body}) as answer:
            return answer.status, json.loads(await answer.read())

    async def lines(self, path: str, **body: Any) -> list[Any]:
        """The NDJSON lines of a stream that must end well."""
        async with self.post(path, body) as answer:
            assert answer.status == 200, await answer.read()
            assert answer.headers["Content-Type"] == "application/x-ndjson"
            return [json.loads(line) for line in (await answer.read()).splitlines()]

    async def broken(self, path: str, **body: Any) -> bytes:
        """All bytes of a stream that must be cut off before its end."""
        received = b""
        async with self.post(path, body) as answer:
            assert answer.status == 200
            with pytest.raises(aiohttp.ClientPayloadError):
                async for data in answer.content.iter_any():
                    received += data
        return received


MakeFront = Callable[..., AbstractAsyncContextManager[Front]]


async def _nothing_changed() -> Reloaded:
    return Reloaded()


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, for sockets."""
    with tempfile.TemporaryDirectory(prefix="lm-") as name:
        yield Path(name)


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tinychat, and tinyembed which came later."""
    folder = tmp_path_factory.mktemp("models")
    for age, name in ((1_700_000_000, "tinychat.gguf"), (1_700_000_100, "tinyembed.gguf")):
        shutil.copy(replay.MODELS / name, folder)
        os.utime(folder / name, (age, age))
    return folder


@pytest.fixture(scope="session")
def fake_binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_llama_server.install(tmp_path_factory.mktemp("fake") / "bin")


@pytest.fixture
def make_front(folder: Path, models_dir: Path, fake_binary: Path) -> MakeFront:
    """``async with make_front(faults, binary=…, server=ServerConfig(…)) as front``."""

    @contextlib.asynccontextmanager
    async def make(
        faults: str = "",
        binary: Path = fake_binary,
        server: ServerConfig | None = None,
        registry: RegistryConfig | None = None,
        models: dict[str, Any] | None = None,
        **more: Any,
    ) -> AsyncIterator[Front]:
        home = folder / "home"
        paths = Paths(home / "data", home / "config", home / "cache", home / "state", folder)
        config = Config(
            models_dirs=(str(models_dir),),
            server=server or ServerConfig(),
            registry=registry or RegistryConfig(ollama=NOBODY, hub=NOBODY),
            models=parse_config({"models": models or {}}).models,
        )
        children = TestChildren(binary, folder, faults)
        stopped: list[bool] = []
        services = Services(
            children,
            Index(paths, config),
            config,
            "1.2.3",
            1000.0,
            lambda: stopped.append(True),
            _nothing_changed,
            tally=children.tally,
            **more,
        )
        async with (
            fronting(services) as port,
            aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
        ):
            front = Front(services, children, session, port)
            front.stopped = stopped
            try:
                yield front
            finally:
                children.close()

    return make


@contextlib.asynccontextmanager
async def fronting(services: Services, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """The public application as the daemon runs it."""
    limits = lambda: services.config.server  # noqa: E731
    runner = FrontRunner(build_app(services), limits, services.metrics, 1000, shutdown_timeout=1)
    async with listening(runner, tls) as port:
        yield port


@contextlib.asynccontextmanager
async def serving(app: web.Application) -> AsyncIterator[int]:
    async with listening(
        web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1)
    ) as port:
        yield port


@contextlib.asynccontextmanager
async def listening(runner: web.AppRunner, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    await runner.setup()
    try:
        await FrontSite(runner, "127.0.0.1", 0, tls, handshake_wait=1.0).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@pytest.fixture
async def front(make_front: MakeFront) -> AsyncIterator[Front]:
    async with make_front() as front:
        yield front
