"""The whole program: the installed command, a real daemon, a real llama-server."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
import pytest

from llamamgr.core.cards import Build
from llamamgr.daemon.client import Control
from llamamgr.host.paths import Paths
from tests.conftest import BUILD_FORMAT, GOLDEN_MODELS, ROOT, _cache
from tests.fakes import llama_repository as repository

DEADLINE = 30.0


def llamamgr(
    *arguments: str, env: dict[str, str] | None = None, stdin: str | None = None, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end."""
    return subprocess.run(
        [sys.executable, "-m", "llamamgr", *arguments],
        env={**os.environ, **(env or {})},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL if stdin is None else None,
    )


class Daemon:
    """A daemon in the foreground, as ``llamamgr serve`` runs it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.log = home / "serve.log"
        self._start()

    def _start(self, host: str = "127.0.0.1:0") -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "llamamgr", "serve", "--host", host],
                stdout=subprocess.PIPE,
                stderr=log,
                stdin=subprocess.DEVNULL,
                text=True,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("llamamgr listens on "), self.log.read_text()
        self.url = line.split()[-1]

    @property
    def control(self) -> Control:
        return Control(Paths.of_environment())

    def restart(self) -> None:
        self.process.wait(DEADLINE)
        self._close()
        self._start()

    def post(self, path: str, body: Any) -> Any:
        request = urllib.request.Request(
            self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{error.code}: {error.read().decode()}") from None

    def children(self) -> list[dict[str, Any]]:
        return list(self.control.call("GET", "/control/ps")["children"])

    def wait_for_crash(self) -> None:
        """Return when one of the children there are now is gone."""
        before = {child["pid"] for child in self.children()}
        until(lambda: {child["pid"] for child in self.children()} != before or not before)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(DEADLINE)
        self._close()

    def _close(self) -> None:
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def home_with_models(real_build: Build, own_home: Path) -> Path:
    """A home with the real build and both golden models in a configured folder."""
    models = own_home / "gguf"
    shutil.copytree(GOLDEN_MODELS, models)
    config = own_home / "config"
    config.mkdir()
    (config / "config.toml").write_text(f'models_dirs = ["{models}"]\n')
    return own_home


@pytest.fixture
def daemon(home_with_models: Path) -> Iterator[Daemon]:
    running = Daemon(home_with_models)
    yield running
    running.stop()


def until(true: Any, deadline: float = 10.0) -> None:
    end = time.monotonic() + deadline
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


@pytest.fixture(scope="session")
def llama_repository() -> Path:
    """A bare git repository of real llama.cpp with the tags b11393, b11401 and b11434."""
    with filelock.FileLock(_cache() / "llama-repository.lock", timeout=3000):
        return repository.llama_repository(_cache())


@pytest.fixture(scope="session")
def updated_instance(llama_repository: Path) -> Path:
    """The folder of a real instance ``old``: installed at b11401, then updated to b11434; made once and kept."""
    recipe = (ROOT / "recipes" / "arch" / "cpu.toml").read_bytes()
    key = hashlib.sha256(f"b11401 b11434 {BUILD_FORMAT} ".encode() + recipe).hexdigest()[:12]
    home = _cache() / f"updated-{key}"
    instance = home / "data" / "instances" / "old"
    steps = (
        (
            "install",
            "--instance",
            "old",
            "--arch",
            "cpu",
            "--repo-url",
            llama_repository.as_uri(),
            "--tag",
            "b11401",
        ),
        ("update", "old", "--tag", "b11434"),
    )
    with filelock.FileLock(_cache() / f"{home.name}.lock", timeout=3000):
        if len(list(instance.glob("builds/*"))) < len(steps):
            for step in steps:
                command = [sys.executable, "-m", "llamamgr", *step]
                subprocess.run(command, env={**os.environ, "LLAMAMGR_HOME": str(home)}, check=True)
    return instance
