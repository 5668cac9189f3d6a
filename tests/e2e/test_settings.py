"""Configuration in a running daemon: reloads, settings, residents, logs."""

from __future__ import annotations

import json
import signal

import psutil
import pytest

from llamamgr.models import selftest
from tests.e2e.conftest import Daemon, llamamgr, until
from tests.e2e.test_promises import chat

pytestmark = pytest.mark.real


def write_config(daemon: Daemon, text: str) -> None:
    (daemon.home / "config" / "config.toml").write_text(f'models_dirs = ["{daemon.home}/gguf"]\n{text}')


def test_a_reload_disturbs_only_the_models_it_concerns(daemon: Daemon):
    daemon.post("/api/chat", chat(stream=False))
    daemon.post("/api/chat", chat(stream=False, model="tinychat"))
    before = {child["model"]["name"]: child["pid"] for child in daemon.children()}
    write_config(daemon, '[models.tinychat]\ncontext = 512\nflags = { threads = 1 }\naliases = ["gpt"]\n')
    told = llamamgr("daemon", "reload")
    assert "tinychat:latest is affected" in told.stdout, told.stderr
    daemon.post("/api/chat", chat(stream=False, model="gpt"))
    daemon.post("/api/chat", chat(stream=False))
    until(lambda: len(daemon.children()) == 2)
    after = {child["model"]["name"]: child for child in daemon.children()}
    assert after["selftest:latest"]["pid"] == before["selftest:latest"]
    assert after["tinychat:latest"]["pid"] != before["tinychat:latest"]
    assert after["tinychat:latest"]["context"] == 512


def test_a_broken_configuration_changes_nothing_and_is_named(daemon: Daemon):
    daemon.post("/api/chat", chat(stream=False))
    [before] = daemon.children()
    write_config(daemon, "[models.tinychat]\nparalel = 2\n")
    told = llamamgr("daemon", "reload")
    assert told.returncode == 2
    assert 'models."tinychat".paralel' in told.stderr
    assert "parallel" in told.stderr
    daemon.process.send_signal(signal.SIGHUP)
    until(lambda: "refused, nothing has changed" in daemon.log.read_text())
    assert [child["pid"] for child in daemon.children()] == [before["pid"]]


def test_a_preloaded_model_is_there_before_anybody_asks(home_with_models):
    (home_with_models / "config" / "config.toml").write_text("[models.selftest]\npreload = true\n")
    daemon = Daemon(home_with_models)
    try:
        until(lambda: [child["state"] for child in daemon.children()] == ["ready"])
    finally:
        daemon.stop()


def test_logs_show_an_engines_last_lines(daemon: Daemon):
    daemon.post("/api/chat", chat(stream=False))
    shown = llamamgr("logs", "selftest", "-n", "3")
    assert len(shown.stdout.splitlines()) == 3
    missing = llamamgr("logs", "nope")
    assert missing.returncode == 4


def test_stop_now_ends_a_model_in_the_middle_of_a_request(daemon: Daemon):
    from tests.e2e.test_promises import _read_raw

    _, response, connection = _read_raw(daemon.url, "/api/chat", chat(text=selftest.ENDLESS_PROMPT))
    assert llamamgr("stop", "selftest", "--now").returncode == 0
    with pytest.raises(Exception, match=r"IncompleteRead|0 bytes|reset|error"):
        data = b""
        while piece := response.read1(65536):
            data += piece
        raise AssertionError("error" if b'"error"' in data else "no error was told")
    connection.close()
    until(lambda: daemon.children() == [])


def test_the_daemon_under_load_answers_or_tells_an_error_when_it_is_stopped(daemon: Daemon):
    _, response, connection = _raw_endless(daemon)
    daemon.process.send_signal(signal.SIGTERM)
    data = b""
    try:
        while piece := response.read1(65536):
            data += piece
    except OSError:
        pass
    except Exception as error:  # a cut body
        assert "IncompleteRead" in repr(error)
    connection.close()
    assert daemon.process.wait(40) == 0
    lines = [line for line in data.splitlines() if line.startswith(b"{") and line.endswith(b"}")]
    assert lines
    assert not json.loads(lines[-1]).get("done")
    assert not [p for p in psutil.process_iter() if _is_engine_of(p, daemon)]


def _raw_endless(daemon: Daemon):
    from tests.e2e.test_promises import _read_raw

    return _read_raw(daemon.url, "/api/chat", chat(text=selftest.ENDLESS_PROMPT))


def _is_engine_of(process: psutil.Process, daemon: Daemon) -> bool:
    try:
        return any(str(daemon.home) in word for word in process.cmdline())
    except psutil.Error:
        return False
