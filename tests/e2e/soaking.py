"""What a soak is made of: clients of three dialects, faults of many kinds, and somebody who watches the daemon meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import urllib.parse
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import psutil
import tomli_w

from llamamgr.core.errors import LlamamgrError
from llamamgr.models import selftest
from llamamgr.proxy.relay import JSON
from llamamgr.proxy.upstream import Exchange, UpstreamLostError, open_exchange
from llamamgr.supervise.lease import Endpoint
from tests.e2e.conftest import Daemon
from tests.fakes import fake_llama_server

TINY = "".join(fake_llama_server.ANSWER)
SAYS = {"selftest": selftest.ANSWER, "tinychat": TINY, "odd": TINY}
OLLAMA, OPENAI, ANTHROPIC = "/api/chat", "/v1/chat/completions", "/v1/messages"
ODDITIES = (
    "garbage-frame",
    "garbage-json",
    "cut=2",
    "error-stream",
    "no-done",
    "exit-at=mid-stream",
    "fail=500",
    "",
)
_LONGEST = 120.0  # seconds for any one request
_AFTER_AN_ERROR = 0.2  # seconds before a client asks again


class Clients:
    """``endings`` counts (dialect, how): ``answer``, ``told`` (an error in the dialect) or ``left`` (the client went).

    They speak by the proxy's own connections to engines, which lose no byte that came before a cut.
    """

    def __init__(self, daemon: Daemon, chance: random.Random) -> None:
        where = urllib.parse.urlsplit(daemon.url)
        self._front = Endpoint(host=where.hostname or "", port=where.port or 0)
        self._chance = chance
        self.begun = 0
        self.endings: Counter[tuple[str, str]] = Counter()
        self.statuses: Counter[int] = Counter()
        self.slowest = 0.0

    async def run(self, until: float) -> None:
        """One client: a request after the other."""
        loop = asyncio.get_running_loop()
        while loop.time() < until:
            self.begun += 1
            path = self._chance.choice((OLLAMA, OPENAI, ANTHROPIC))
            asked = loop.time()
            async with asyncio.timeout(_LONGEST):
                how = await self._request(path)
            self.slowest = max(self.slowest, loop.time() - asked)
            self.endings[path, how] += 1
            if how == "told":
                await asyncio.sleep(_AFTER_AN_ERROR)

    async def _request(self, path: str) -> str:
        kind = self._chance.choices(("short", "whole", "leaves", "slow"), (6, 2, 1, 1))[0]
        model = self._chance.choice(tuple(SAYS))
        text = "hello" if kind in ("short", "whole") else selftest.ENDLESS_PROMPT
        body = {"model": model, "messages": [{"role": "user", "content": text}], "stream": kind != "whole"}
        body |= {"max_tokens": 400, "options": {"num_predict": 400}}
        reading = Reading(path)
        # what ends too early is for the lines to tell: an error must be the last of them
        with contextlib.suppress(UpstreamLostError):
            async with open_exchange(self._front, "POST", path, JSON, json.dumps(body).encode()) as answer:
                self.statuses[answer.status] += 1
                if kind == "whole" or answer.status != 200:
                    reading.whole(answer.status, await answer.read())
                else:
                    await self._read(answer, reading, kind)
                    if kind == "leaves" and not reading.ended:
                        return "left"
        assert reading.ended, f"{path} {model}: neither an answer nor an error: {reading.last!r}"
        if reading.ended == "answer" and text == "hello":
            assert reading.text == SAYS[model], f"{path} {model} said {reading.text!r}"
        return reading.ended

    async def _read(self, answer: Exchange, reading: Reading, kind: str) -> None:
        rest = b""
        async for piece in answer:
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                reading.line(line)
            if kind == "leaves" and reading.text:
                return
            if kind == "slow":
                await asyncio.sleep(0.05)


class Reading:
    """One answer as it comes; ``ended`` becomes ``answer`` or ``told`` once, and nothing may follow it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.ended = ""
        self.text = ""
        self.last = b""

    def line(self, line: bytes) -> None:
        data = line.strip().removeprefix(b"data: ")
        if not data or data.startswith((b"event:", b":")):
            return
        assert not self.ended, f"{self._path}: after its end came {data!r}"
        self.last = data
        if data == b"[DONE]":
            self.ended = "answer"
            return
        event = json.loads(data)
        if "error" in event:
            self.ended = "told"
        elif event.get("done") or event.get("type") == "message_stop":
            self.ended = "answer"
        self.text += _said(event)

    def whole(self, status: int, body: bytes) -> None:
        self.last = body
        answer = json.loads(body)
        self.ended = "answer" if status == 200 else "told" if "error" in answer else ""
        self.text = _said(answer)


def _said(event: dict[str, Any]) -> str:
    """The text in a piece or a whole of any of the three dialects."""
    if "choices" in event:
        return "".join(
            (c.get("delta") or c.get("message") or {}).get("content") or "" for c in event["choices"]
        )
    if event.get("type") == "content_block_delta":
        return str(event["delta"].get("text", ""))
    if isinstance(event.get("content"), list):
        return "".join(block.get("text", "") for block in event["content"])
    message = event.get("message")
    content = message.get("content") if isinstance(message, dict) else ""
    return content if isinstance(content, str) else ""


class Faults:
    """One fault every two seconds, each kind once before any comes again; ``done`` counts them."""

    def __init__(self, daemon: Daemon, chance: random.Random) -> None:
        self._daemon = daemon
        self._chance = chance
        self._parallel = 4
        self._oddity = ""
        self.done: Counter[str] = Counter()
        self.kinds: dict[str, Callable[[], Awaitable[None]]] = {
            "engine SIGKILL": lambda: self._signal(signal.SIGKILL),
            "engine SIGSEGV": lambda: self._signal(signal.SIGSEGV),
            "engine SIGTERM": lambda: self._signal(signal.SIGTERM),
            "engine SIGSTOP": lambda: self._signal(signal.SIGSTOP),
            "unload when idle": lambda: self._unload(now=False),
            "unload now": lambda: self._unload(now=True),
            "reload, nothing new": self._reload,
            "reload, a model changed": self._change,
            "reload, broken": self._break,
            "reload by SIGHUP": self._hang_up,
            "engine odd": self._make_odd,
        }

    async def run(self, until: float) -> None:
        loop = asyncio.get_running_loop()
        deck: list[str] = []
        while loop.time() + 2 < until:
            await asyncio.sleep(2)
            deck = deck or self._chance.sample(tuple(self.kinds), len(self.kinds))
            kind = deck.pop()
            await self.kinds[kind]()
            self.done[kind] += 1

    async def _signal(self, number: signal.Signals) -> None:
        # one that is just being spawned has no pid yet, and pid 0 would be this very process group
        pids = [child["pid"] for child in await asyncio.to_thread(self._daemon.children) if child["pid"] > 0]
        if pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._chance.choice(pids), number)

    async def _unload(self, *, now: bool) -> None:
        body = {"model": self._chance.choice(tuple(SAYS)), "now": now}
        await asyncio.to_thread(self._daemon.control.call, "POST", "/control/stop-model", body)

    async def _reload(self) -> None:
        self.write()
        await asyncio.to_thread(self._daemon.control.call, "POST", "/control/reload", {})

    async def _change(self) -> None:
        self._parallel = 6 - self._parallel
        await self._reload()

    async def _make_odd(self) -> None:
        self._oddity = self._chance.choice(ODDITIES)
        await self._reload()

    async def _hang_up(self) -> None:
        self._daemon.process.send_signal(signal.SIGHUP)

    async def _break(self) -> None:
        self.write("schedular = 1\n")
        try:
            await asyncio.to_thread(self._daemon.control.call, "POST", "/control/reload", {})
        except LlamamgrError:
            self.write()
        else:
            raise AssertionError("a broken configuration was taken")

    def write(self, mistake: str = "") -> None:
        """The configuration as it is to be now: room for two of three models, and little patience."""
        write_configuration(self._daemon.home, self._parallel, self._oddity, mistake)


def write_configuration(home: Path, parallel: int = 4, oddity: str = "", mistake: str = "") -> None:
    """``odd`` runs on the fake, in the way that ``oddity`` says; the others on a real engine."""
    odd = {"instance": "odd", "env": {"FAKE_LLAMA": oddity}}
    one = {"flags": {"threads": 1, "threads-batch": 1}}
    written = {
        "models_dirs": [str(home / "gguf")],
        "scheduler": {"max_models": 2, "patience": 0.5, "queue_wait": 60},
        "models": {"selftest": one, "tinychat": {"parallel": parallel, **one}, "odd": odd},
    }
    (home / "config").mkdir(exist_ok=True)
    (home / "config" / "config.toml").write_text(mistake + tomli_w.dumps(written))


class Sample(msgspec.Struct, frozen=True):
    """The daemon at ``at`` seconds: resident MB, open descriptors, processes below it, and its loop's lateness in ms (p99)."""

    at: float
    memory: float
    descriptors: int
    processes: int
    lag: float


class Watcher:
    """Samples of the daemon, and of how late this machine wakes anybody at all."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._process = psutil.Process(daemon.process.pid)
        self.samples: list[Sample] = []
        self.noise = 0.0

    async def run(self, until: float) -> None:
        loop = asyncio.get_running_loop()
        start = loop.time()
        step = max(1.0, (until - start) / 200)
        command = [sys.executable, str(Path(__file__).parent / "metronome.py")]
        metronome = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            while loop.time() < until:
                self.samples.append(await asyncio.to_thread(self._sample, loop.time() - start))
                await asyncio.sleep(step)
        finally:
            told, _ = metronome.communicate()
            self.noise = float(told) * 1000

    def _sample(self, at: float) -> Sample:
        lag = self._daemon.control.call("GET", "/control/ping")["loop_lag_p99"]
        memory = self._process.memory_info().rss / 1e6
        return Sample(
            at, memory, self._process.num_fds(), len(self._process.children(recursive=True)), lag * 1000
        )

    @property
    def lag(self) -> float:
        """The worst p99, in ms."""
        return max(sample.lag for sample in self.samples)

    @property
    def growth(self) -> float:
        """MB a minute that memory grew by over the second half: the slope of the line that fits it best."""
        rows = self.samples[len(self.samples) // 2 :]
        mean_at = sum(r.at for r in rows) / len(rows)
        mean = sum(r.memory for r in rows) / len(rows)
        spread = sum((r.at - mean_at) ** 2 for r in rows)
        return 60 * sum((r.at - mean_at) * (r.memory - mean) for r in rows) / spread if spread else 0.0
