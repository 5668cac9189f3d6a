"""``llamamgr daemon``: what would keep one from starting is told before the one that runs is touched."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

import pytest

from llamamgr.daemon.client import Control
from llamamgr.host.paths import Paths
from tests.conftest import ROOT


def llamamgr(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "llamamgr", *words],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )


def configure(text: str) -> Path:
    file = Paths.of_environment().config_file
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def running(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What a daemon says of itself that was started in the background."""
    monkeypatch.setenv("LLAMAMGR_HOST", "127.0.0.1:0")
    started = llamamgr("daemon", "start")
    assert started.returncode == 0, started.stderr
    pong = Control(Paths.of_environment()).ping(5)
    assert pong is not None
    yield pong
    monkeypatch.setenv("LLAMAMGR_HOST", "127.0.0.1:0")
    configure("")
    assert llamamgr("daemon", "stop").returncode == 0


def test_a_restart_with_a_mistake_leaves_the_daemon_that_runs_alone(running: dict[str, Any]) -> None:
    file = configure('keep_alife = "5m"\n')
    done = llamamgr("daemon", "restart")
    assert done.returncode == 2
    assert done.stderr == f"error: {file}: unknown key keep_alife\nhint: did you mean keep_alive?\n"
    assert "stopped" not in done.stdout
    assert _pid() == running["pid"]


def test_a_restart_to_an_address_that_is_taken_leaves_the_daemon_that_runs_alone(
    running: dict[str, Any], taken: int
) -> None:
    done = llamamgr("daemon", "restart", LLAMAMGR_HOST=f"127.0.0.1:{taken}")
    assert done.returncode == 5
    assert f"127.0.0.1:{taken} is in use by" in done.stderr
    assert _pid() == running["pid"]


def test_a_restart_takes_the_daemons_own_address_for_free(running: dict[str, Any]) -> None:
    host = running["url"].partition("//")[2]
    done = llamamgr("daemon", "restart", LLAMAMGR_HOST=host)
    assert done.returncode == 0, done.stderr
    assert f"runs on {running['url']}" in done.stdout
    assert _pid() != running["pid"]


@pytest.mark.parametrize("command", [("daemon", "start"), ("pull", "llama3.2")])
def test_a_start_in_the_background_fails_as_serve_does(command: tuple[str, ...], taken: int) -> None:
    for changes, code in (
        ({"LLAMAMGR_HOST": f"127.0.0.1:{taken}"}, 5),
        ({"LLAMAMGR_HOST": "0.0.0.0:1"}, 2),
    ):
        served, background = llamamgr("serve", **changes), llamamgr(*command, **changes)
        assert served.returncode == background.returncode == code
        assert background.stderr.endswith(f"automatically...\n{served.stderr}")


def test_the_second_failure_tells_nothing_of_the_first(taken: int) -> None:
    first, second = (llamamgr("daemon", "start", LLAMAMGR_HOST=f"127.0.0.1:{taken}") for _ in range(2))
    assert first.stderr == second.stderr
    assert second.stderr.count("error: ") == 1


def test_a_daemon_that_died_without_a_word_is_told_with_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(_package_that_dies(Path(os.environ["LLAMAMGR_HOME"]))))
    done = llamamgr("daemon", "start")
    assert done.returncode == 3
    assert "ended at its start with code 86: the last words" in done.stderr
    assert f"hint: its whole log: {Paths.of_environment().daemon_log}" in done.stderr


def _package_that_dies(home: Path) -> Path:
    """A start-up file of Python that ends every `serve`."""
    folder = home / "dying"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import os, sys\nif 'serve' in sys.orig_argv: os.write(2, b'the last words'); os._exit(86)\n"
    )
    return folder


def test_check_tells_what_a_start_would_and_starts_nothing(taken: int) -> None:
    good = llamamgr("daemon", "check", LLAMAMGR_HOST="127.0.0.1:0")
    assert good.returncode == 0 and "would listen on http://127.0.0.1:" in good.stdout
    assert llamamgr("daemon", "check", LLAMAMGR_HOST=f"127.0.0.1:{taken}").returncode == 5
    configure("[server]\ntls_cert = '/nix'\ntls_key = '/nix'\n")
    certificate = llamamgr("daemon", "check", LLAMAMGR_HOST="127.0.0.1:0")
    assert certificate.returncode == 2 and "/nix" in certificate.stderr
    assert Control(Paths.of_environment()).ping() is None


def test_another_home_s_daemon_is_named_with_the_command_that_ends_it(
    running: dict[str, Any], tmp_path: Path
) -> None:
    address = running["url"].partition("//")[2]
    refused = llamamgr("daemon", "check", LLAMAMGR_HOME=str(tmp_path), LLAMAMGR_HOST=address)
    assert refused.returncode == 5
    assert f"in use by another llamamgr (pid {running['pid']})" in refused.stderr
    assert f"`LLAMAMGR_HOME={os.environ['LLAMAMGR_HOME']} llamamgr stop` ends it" in refused.stderr


def test_quickstart_asks_whether_a_daemon_can_start_before_it_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    loader = SourceFileLoader("quickstart", str(ROOT / "scripts" / "quickstart"))
    spec = spec_from_loader("quickstart", loader)
    assert spec is not None
    quickstart = module_from_spec(spec)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    loader.exec_module(quickstart)
    steps: list[str] = []

    def step(argv: list[object], **how: object) -> None:
        steps.append(" ".join(str(word) for word in argv[1:3]))
        if "run" in argv:
            raise InterruptedError

    monkeypatch.setattr(quickstart, "install_llamamgr", lambda python, environment: None)
    monkeypatch.setattr(quickstart, "run", step)
    monkeypatch.setattr(sys, "argv", ["quickstart"])
    with pytest.raises(InterruptedError):
        quickstart.main()
    assert steps == ["daemon check", "install", "run selftest"]


def _pid() -> int:
    pong = Control(Paths.of_environment()).ping(5)
    return pong["pid"] if pong else 0


def test_settings_that_cannot_work_are_told_by_reload_and_check_and_in_the_log_at_the_start(
    own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMAMGR_HOST", "127.0.0.1:0")
    configure('default_model = "nix"\n')
    said = "default_model: model 'nix' not found"
    assert f"warning: {said}\nhint: " in llamamgr("daemon", "check").stderr
    assert llamamgr("daemon", "start").returncode == 0
    try:
        log = Paths.of_environment().daemon_log
        deadline = time.monotonic() + 20
        while said not in log.read_text() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert said in log.read_text()
        reloaded = llamamgr("daemon", "reload")
        assert reloaded.returncode == 0 and reloaded.stdout.startswith("the configuration is in force")
        assert f"warning: {said}\nhint: " in reloaded.stderr
        configure("")
        assert llamamgr("daemon", "reload").stderr == ""
    finally:
        assert llamamgr("daemon", "stop").returncode == 0
