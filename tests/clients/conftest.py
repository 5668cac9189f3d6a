"""The scripts of clients, run in their own environments against a daemon with the real llama-server."""

from __future__ import annotations

import json
import os
import shutil
import socketserver
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llamamgr.models import selftest
from tests.clients import environments
from tests.e2e.conftest import DEADLINE, Daemon, daemon, home_with_models
from tests.fakes import registry
from tests.fakes.registry import FakeRegistry

__all__ = ["daemon", "home_with_models"]

FACTS = {"tool": selftest.TOOL_NAME, "endless": selftest.ENDLESS_PROMPT}
# What switches off frameworks' own calls to the world: price lists, traces, usage statistics.
QUIET = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LANGSMITH_TRACING": "false",
    "DO_NOT_TRACK": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
}


class Outside(socketserver.ThreadingTCPServer):
    """A proxy that nothing gets through: ``asked`` is what clients wanted of the world."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Refusal)
        self.asked: list[str] = []

    @property
    def settings(self) -> dict[str, str]:
        """The environment that sends all traffic here but that to the daemon."""
        url = f"http://127.0.0.1:{self.server_address[1]}"
        proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), url)
        settings = {**proxies, "NO_PROXY": "127.0.0.1,localhost"}
        return settings | {name.lower(): value for name, value in settings.items()}


class _Refusal(socketserver.StreamRequestHandler):
    server: Outside

    def handle(self) -> None:
        self.server.asked.append(self.rfile.readline(200).decode("latin-1").strip())
        self.wfile.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


@pytest.fixture
def outside() -> Iterator[Outside]:
    """Watches that no client speaks to anything but the daemon."""
    with Outside() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()
    assert not server.asked


@pytest.fixture
def far(home_with_models: Path) -> Iterator[FakeRegistry]:
    """The registry that the daemon pulls from, when it is asked for before the daemon."""
    config = home_with_models / "config" / "config.toml"
    with registry.running() as fake:
        config.write_text(config.read_text() + f'[registry]\nollama = "{fake.url}"\n')
        yield fake


class Script:
    """A client's script at work."""

    def __init__(self, command: list[str], folder: Path, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def heard(self, line: str) -> None:
        """Return once the script says ``line``."""
        assert self.process.stdout is not None
        said = self.process.stdout.readline().strip()
        assert said == line, self.process.communicate(timeout=DEADLINE)[1]

    def told(self) -> Any:
        """What the script told in its last line; a failed script fails the test with its own words."""
        out, err = self.process.communicate(timeout=4 * DEADLINE)
        assert self.process.returncode == 0, out + err
        return json.loads(out.splitlines()[-1])


@pytest.fixture
def scripts() -> Iterator[list[Script]]:
    """Those that were started; none goes on when the test is over."""
    started: list[Script] = []
    yield started
    for script in started:
        script.process.kill()
        script.process.communicate(timeout=DEADLINE)


@pytest.fixture
def start(tmp_path: Path, outside: Outside, daemon: Daemon, scripts: list[Script]) -> Callable[..., Script]:
    """Start exchanges of a JavaScript client: ``start("ollama", "chat", "tools")``."""
    for file in environments.JAVASCRIPT.glob("*.mjs"):
        shutil.copy(file, tmp_path)  # modules are looked for beside the script
    (tmp_path / "node_modules").symlink_to(environments.node_modules())
    (tmp_path / "facts.json").write_text(json.dumps(FACTS))

    def begin(client: str, *exchanges: str) -> Script:
        command = [str(environments.node()), f"{client}.mjs", daemon.url, *exchanges]
        scripts.append(Script(command, tmp_path, outside.settings))
        return scripts[-1]

    return begin


@pytest.fixture
def ask(tmp_path: Path, outside: Outside, daemon: Daemon, scripts: list[Script]) -> Callable[[str], Any]:
    """What the script of a framework tells: ``ask("langchain")``."""

    def whole(framework: str) -> Any:
        python = environments.python(environments.PYTHON / f"{framework}.txt")
        script = environments.PYTHON / f"ask_{framework.replace('-', '_')}.py"
        command = [str(python), str(script), daemon.url, selftest.TOOL_NAME]
        settings = outside.settings | QUIET | {"HOME": str(tmp_path)}
        scripts.append(Script(command, tmp_path, settings))
        told = scripts[-1].told()
        assert not told.pop("outside")
        return told

    return whole
