"""The whole program over two engines, the fake and the real one, each behind a wrapper that makes it fail as asked."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
import tomli_w

from llamamgr.core.cards import BuildCard
from llamamgr.instances.card_files import read_build
from llamamgr.models import selftest
from tests.e2e.conftest import Daemon
from tests.fakes import fake_llama_server, wrapped

FAKES = Path(__file__).parents[2] / "fakes"
A, B, C = "selftest-a", "selftest-b", "selftest-c"


class Engine(msgspec.Struct, frozen=True):
    """A llama-server to be wrapped: ``name`` is ``fake`` or ``real``."""

    name: str
    program: Path
    card: BuildCard


@pytest.fixture(scope="session")
def fake_of_peers(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    program = fake_llama_server.install(tmp_path_factory.mktemp("fake") / "bin")
    return Engine("fake", program, wrapped.fake_engine())


@pytest.fixture
def fake_engine(fake_of_peers: Engine) -> Engine:
    """For what only the fake can do; the table of findings says why."""
    return fake_of_peers


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.real)])
def engine(request: pytest.FixtureRequest, fake_of_peers: Engine) -> Engine:
    if request.param == "fake":
        return fake_of_peers
    build = read_build(request.getfixturevalue("real_instance") / "current")
    return Engine("real", Path(build.tool("llama-server")).resolve(), build.card)


Serve = Callable[..., Daemon]


@pytest.fixture
def serve(own_home: Path) -> Iterator[Serve]:
    """``serve(engine, models={name: settings}, scheduler={…}, **capability)`` starts a daemon over models A, B and C."""
    running: list[Daemon] = []

    def start(
        engine: Engine,
        models: Mapping[str, Mapping[str, object]] | None = None,
        scheduler: Mapping[str, object] | None = None,
        **capability: object,
    ) -> Daemon:
        install(own_home, engine, **capability)
        configure(own_home, models or {}, scheduler or {})
        running.append(Daemon(own_home))
        return running[-1]

    yield start
    for daemon in running:
        awaken(daemon)
        daemon.stop()


def install(home: Path, engine: Engine, **capability: object) -> None:
    wrapped.publish(engine.program, engine.card, home, **capability)
    (home / "gguf").mkdir()
    for number, name in enumerate((A, B, C)):
        (home / "gguf" / f"{name}.gguf").write_bytes(selftest.selftest_bytes() + bytes(32 * number))


def configure(
    home: Path, models: Mapping[str, Mapping[str, object]], scheduler: Mapping[str, object], note: str = ""
) -> None:
    """Write ``config.toml``. One thread each: two of an engine's that wait for each other crawl where others want the cores."""
    (home / "config").mkdir(exist_ok=True)
    usual = {"context": selftest.CONTEXT, "parallel": 4, "flags": {"threads": 1, "threads-batch": 1}}
    tables = {name: {**usual, **models.get(name, {})} for name in (A, B, C)}
    written: dict[str, Any] = {
        "models_dirs": [str(home / "gguf")],
        "scheduler": dict(scheduler),
        "models": tables,
    }
    (home / "config" / "config.toml").write_text(note + tomli_w.dumps(written))


def awaken(daemon: Daemon) -> None:
    """Let children go on that a test has stopped, so that the end is not waited for."""
    if daemon.process.poll() is not None:
        return
    for child in psutil.Process(daemon.process.pid).children(recursive=True):
        try:
            child.send_signal(signal.SIGCONT)
        except psutil.Error:
            continue


def child_of(daemon: Daemon, model: str) -> dict[str, Any]:
    """What ``ps`` says of the child of ``model``; the newest one."""
    found = [child for child in daemon.children() if child["model"]["name"] == f"{model}:latest"]
    assert found, f"no child of {model}: {daemon.children()}"
    return max(found, key=lambda child: int(child["id"][1:]))


def stop_process(pid: int) -> None:
    """SIGSTOP: it answers nothing any more, and no SIGTERM reaches it."""
    os.kill(pid, signal.SIGSTOP)
