"""What ``scripts/bench proxy`` compares: each a server of its own on a core of its own, in front of the fast fake upstream."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import psutil

from llamamgr.core.cards import BuildCard, Capability, InstanceSpec, Source
from llamamgr.core.flags import parse_help
from llamamgr.host.files import write_atomic
from llamamgr.host.processes import capture
from llamamgr.instances.card_files import dump
from llamamgr.models import selftest
from llamamgr.models.writer import gguf_bytes
from tests.bench.fast_upstream import WORD
from tests.bench.load import Address, Question, post

FAST_UPSTREAM = Path(__file__).with_name("fast_upstream.py")
MODEL = "bench"
SLOTS = 64  # requests at once: as many as are made, since waiting for a turn is not what is measured
_START_SECONDS = 60.0


class Cores(msgspec.Struct, frozen=True):
    """The core of the contestant, and that of the load and the upstream; None where processes cannot be pinned."""

    contestant: int | None = None
    load: int | None = None

    @classmethod
    def of_machine(cls) -> Cores:
        if not hasattr(os, "sched_setaffinity"):
            return cls()
        usable = sorted(os.sched_getaffinity(0))
        return cls(usable[0], usable[-1])

    def take(self, core: int | None) -> None:
        """Pin this process, and what it starts from now on."""
        if core is not None:
            os.sched_setaffinity(0, {core})


class Dialect(msgspec.Struct, frozen=True):
    """How one API asks: a path, a body for a text and its options, the same with an image, and the last words of its streams."""

    path: str
    end: bytes
    small: dict
    tokens: Callable[[int], dict]
    image: Callable[[str], dict]
    mark: bytes = f'"{WORD}"'.encode()  # in each streamed chunk once

    def once(self, tokens: int) -> Question:
        """A small whole answer."""
        return self._question({**self.small, **self.tokens(tokens), "stream": False})

    def stream(self, tokens: int) -> Question:
        return self._question({**self.small, **self.tokens(tokens), "stream": True})

    def large(self, size: int) -> Question:
        """A body of ``size`` bytes, nearly all of it an image."""
        picture = base64.b64encode(bytes(size * 3 // 4)).decode()
        return self._question({**self.small, **self.tokens(4), "stream": False, **self.image(picture)})

    def _question(self, body: dict) -> Question:
        return Question(post(self.path, msgspec.json.encode(body)), self.mark, self.end)


def _said(content: object) -> dict:
    return {"messages": [{"role": "user", "content": content}]}


_SMALL = {"model": MODEL, **_said("hello")}
OPENAI = Dialect(
    path="/v1/chat/completions",
    end=b"data: [DONE]",
    small=_SMALL,
    tokens=lambda count: {"max_tokens": count},
    image=lambda data: _said([{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}]),
)
OLLAMA = Dialect(
    path="/api/chat",
    end=b'"done":true',
    small=_SMALL,
    tokens=lambda count: {"options": {"num_predict": count}},
    image=lambda data: {"messages": [{"role": "user", "content": "hello", "images": [data]}]},
)
ANTHROPIC = Dialect(
    path="/v1/messages",
    end=b'"type":"message_stop"',
    small=_SMALL,
    tokens=lambda count: {"max_tokens": count},
    image=lambda data: _said(
        [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}]
    ),
)


class Contestant(msgspec.Struct, frozen=True):
    """A running server: what is asked of it, where, and the process whose time and memory count (None: nobody's)."""

    name: str
    address: Address
    dialect: Dialect
    process: psutil.Process | None = None
    sees_images: bool = True
    is_comparable: bool = True  # False: it has an engine of its own behind it

    def cpu_seconds(self) -> float:
        if self.process is None:
            return 0.0
        times = self.process.cpu_times()
        return times.user + times.system

    def resident(self) -> int:
        return self.process.memory_info().rss if self.process else 0


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """Short, for sockets."""
    path = Path(tempfile.mkdtemp(prefix="lmb-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _process(
    command: list[str], core: int | None, cores: Cores, environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A process pinned to ``core``, ended with the block; its first line can be read."""
    cores.take(core)
    try:
        process = subprocess.Popen(
            command,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
    finally:
        cores.take(cores.load)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        sys.exit(f"error: {process.args!r} ended before it listened")
    return line


@contextlib.contextmanager
def upstream(cores: Cores) -> Iterator[Path]:
    """The fast fake upstream; its socket."""
    with folder() as place:
        path = place / "u.sock"
        command = [sys.executable, str(FAST_UPSTREAM), "--host", str(path), "--alias", MODEL]
        with _process(command, cores.load, cores) as process:
            _first_line(process)
            yield path


@contextlib.contextmanager
def direct(cores: Cores) -> Iterator[Contestant]:
    with upstream(cores) as path:
        yield Contestant("direct", Address(socket=str(path)), OPENAI)


@contextlib.contextmanager
def bare(cores: Cores) -> Iterator[Contestant]:
    with upstream(cores) as path:
        command = [sys.executable, "-m", "tests.bench.bare_proxy", str(path)]
        with _process(command, cores.contestant, cores) as process:
            port = int(_first_line(process).rpartition(":")[2])
            yield Contestant("bare aiohttp", Address(port), OPENAI, psutil.Process(process.pid))


def ours(name: str, dialect: Dialect) -> Callable[[Cores], contextlib.AbstractContextManager[Contestant]]:
    @contextlib.contextmanager
    def running(cores: Cores) -> Iterator[Contestant]:
        with folder() as home:
            environment = _install(home, cores)
            command = [sys.executable, "-m", "llamamgr", "serve", "--host", "127.0.0.1:0"]
            with _process(command, cores.contestant, cores, environment) as process:
                port = int(_first_line(process).rpartition(":")[2])
                yield Contestant(name, Address(port), dialect, psutil.Process(process.pid))

    return running


def _install(home: Path, cores: Cores) -> dict[str, str]:
    """A home whose instance is the fast upstream and whose model sees; the environment that leads there."""
    root = home / "data" / "instances" / "default" / "builds" / "b1"
    (root / "bin").mkdir(parents=True)
    program = root / "bin" / "llama-server"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{FAST_UPSTREAM}" "$@"\n')
    program.chmod(0o755)
    flags = parse_help(capture([sys.executable, str(FAST_UPSTREAM), "--help"], timeout=20).output)
    card = BuildCard(
        "b1",
        "default",
        "cpu",
        11434,
        "0c1e570",
        Source("directory"),
        verified=True,
        environment={} if cores.load is None else {"BENCH_CORE": str(cores.load)},
        capability=Capability("b1", 11434, "0c1e570", ("llama-server",), flags),
    )
    write_atomic(root / "build.toml", dump(card))
    write_atomic(root.parent.parent / "instance.toml", dump(InstanceSpec("default")))
    (root.parent.parent / "current").symlink_to(Path("builds") / "b1")
    models = home / "gguf"
    models.mkdir()
    shutil.copy(selftest.ensure(home / "made"), models / f"{MODEL}.gguf")
    (models / f"mmproj-{MODEL}.gguf").write_bytes(gguf_bytes({"general.architecture": "clip"}, []))
    (home / "config").mkdir()
    settings = f'models_dirs = ["{models}"]\nsources = ["folders"]\n[models.{MODEL}]\nparallel = {SLOTS}\n'
    (home / "config" / "config.toml").write_text(settings)
    return {"LLAMAMGR_HOME": str(home)}


def llama_swap(binary: str) -> Callable[[Cores], contextlib.AbstractContextManager[Contestant]]:
    """llama-swap in front of the fast upstream, which it starts itself."""

    @contextlib.contextmanager
    def running(cores: Cores) -> Iterator[Contestant]:
        with folder() as place:
            port = _free_port()
            command = f"{sys.executable} {FAST_UPSTREAM} --host 127.0.0.1 --port ${{PORT}} --alias {MODEL}"
            model: dict[str, object] = {"cmd": command, "concurrencyLimit": SLOTS}
            if cores.load is not None:
                model["env"] = [f"BENCH_CORE={cores.load}"]
            config = place / "config.yaml"
            config.write_text(json.dumps({"logLevel": "error", "models": {MODEL: model}}))  # JSON is YAML
            argv = [binary, "--config", str(config), "--listen", f"127.0.0.1:{port}"]
            with _process(argv, cores.contestant, cores) as process:
                _until_answers(f"http://127.0.0.1:{port}/v1/models", process)
                yield Contestant("llama-swap", Address(port), OPENAI, psutil.Process(process.pid))

    return running


def ollama(binary: str) -> Callable[[Cores], contextlib.AbstractContextManager[Contestant]]:
    """Ollama with its own engine on the self-test model: it takes no other upstream, so its rates are of both together."""

    @contextlib.contextmanager
    def running(cores: Cores) -> Iterator[Contestant]:
        with folder() as place:
            port = _free_port()
            environment = {"OLLAMA_HOST": f"127.0.0.1:{port}", "OLLAMA_MODELS": str(place / "models")}
            with _process([binary, "serve"], cores.contestant, cores, environment) as process:
                url = f"http://127.0.0.1:{port}"
                _until_answers(f"{url}/api/version", process)
                _create(url, selftest.ensure(place))
                dialect = msgspec.structs.replace(
                    OLLAMA, small={"model": MODEL, **_said(selftest.ENDLESS_PROMPT)}, mark=b'"done":false'
                )
                yield Contestant(
                    "Ollama",
                    Address(port),
                    dialect,
                    psutil.Process(process.pid),
                    sees_images=False,
                    is_comparable=False,
                )

    return running


def _create(url: str, file: Path) -> None:
    import hashlib

    data = file.read_bytes()
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    for path, body in (
        (f"/api/blobs/{digest}", data),
        ("/api/create", json.dumps({"model": MODEL, "files": {file.name: digest}, "stream": False}).encode()),
    ):
        request = urllib.request.Request(url + path, body, method="POST")
        with urllib.request.urlopen(request, timeout=_START_SECONDS) as answer:
            answer.read()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _until_answers(url: str, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    sys.exit(f"error: {process.args!r} does not answer at {url}")
