"""Three models in the room of two, eight clients, a fault every two seconds: every request ends exactly once, nothing leaks.

``SOAK_SECONDS`` in the environment of the test run is its length in seconds; a shortened form runs every time.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import psutil
import pytest

from llamamgr.models import selftest
from tests.e2e.conftest import Daemon, until

pytestmark = [pytest.mark.real, pytest.mark.timeout(3600)]
SECONDS = float(os.environ.get("SOAK_SECONDS", "30"))
MODELS = ("selftest", "tinychat", "other")
CLIENTS = 8


@pytest.fixture
def crowded(home_with_models: Path) -> Iterator[Daemon]:
    """Room for two of three models, and little patience."""
    models = home_with_models / "gguf"
    (models / "other.gguf").write_bytes((models / "tinychat.gguf").read_bytes() + b"\0" * 64)
    settings = f'models_dirs = ["{models}"]\n[scheduler]\nmax_models = 2\npatience = 0.5\nqueue_wait = 60\n'
    (home_with_models / "config" / "config.toml").write_text(settings)
    daemon = Daemon(home_with_models)
    yield daemon
    daemon.stop()


class Soak:
    """What happened so far. An ending is ``answer``, ``told`` (an error in the dialect) or ``left`` (the client did)."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.begun = 0
        self.endings: Counter[str] = Counter()
        self.random = random.Random(7)

    async def client(self, until_time: float) -> None:
        loop = asyncio.get_running_loop()
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=90)) as session:
            while loop.time() < until_time:
                self.begun += 1
                self.endings[await self.request(session)] += 1

    async def request(self, session: aiohttp.ClientSession) -> str:
        leaves = self.random.random() < 0.1
        text = selftest.ENDLESS_PROMPT if leaves else "hello"
        body = {"model": self.random.choice(MODELS), "messages": [{"role": "user", "content": text}]}
        last: dict[str, object] = {}
        try:
            async with session.post(f"{self.daemon.url}/api/chat", json=body) as answer:
                async for line in answer.content:
                    last = json.loads(line)
                    if leaves and answer.status == 200 and "message" in last:
                        return "left"
        except aiohttp.ClientPayloadError:
            pass  # cut off after its error line, never before
        if last.get("done"):
            return "answer"
        assert "error" in last, f"a request ended without an answer and without an error: {last}"
        return "told"

    async def faults(self, until_time: float) -> None:
        loop = asyncio.get_running_loop()
        while loop.time() < until_time:
            await asyncio.sleep(2)
            children = await asyncio.to_thread(self.daemon.children)
            if children:
                victim = self.random.choice(children)["pid"]
                kind = self.random.choice(
                    (signal.SIGKILL, signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP, signal.SIGTERM)
                )
                if psutil.pid_exists(victim):
                    os.kill(victim, kind)


async def test_every_request_ends_exactly_once_and_nothing_leaks(crowded: Daemon):
    soak, process = Soak(crowded), psutil.Process(crowded.process.pid)
    end = asyncio.get_running_loop().time() + SECONDS
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(soak.faults(end))
        for _ in range(CLIENTS):
            tasks.create_task(soak.client(end))
    assert soak.begun == soak.endings.total()
    assert soak.endings["answer"] > soak.endings["told"]
    until(lambda: all(child["busy"] == 0 and child["queued"] == 0 for child in crowded.children()), 20)
    children = {child["pid"] for child in crowded.children()}
    assert {child.pid for child in process.children(recursive=True)} <= children
    sockets = {path.name for path in (crowded.home / "run").glob("c[0-9]*.sock")}
    assert len(sockets) <= len(children)
    assert process.num_fds() < 60
    lag = crowded.control.call("GET", "/control/ping")["loop_lag_p99"]
    print(
        f"\nsoak {SECONDS:.0f} s: {dict(soak.endings)}, loop lag p99 {lag * 1000:.1f} ms, fds {process.num_fds()}, "
        f"rss {process.memory_info().rss / 1e6:.0f} MB"
    )
