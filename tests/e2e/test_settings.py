"""Configuration in a running daemon: reloads, settings, residents, logs."""

from __future__ import annotations

import concurrent.futures
import contextlib
import http.client
import json
import signal
from typing import Any

import psutil
import pytest

from llamamgr.models import selftest
from tests.e2e.conftest import DEADLINE, Daemon, llamamgr, until
from tests.e2e.test_promises import _read_raw, chat

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


def test_a_configuration_that_cannot_be_read_ends_no_daemon(daemon: Daemon):
    path = daemon.home / "config" / "config.toml"
    path.unlink()
    path.symlink_to("config.toml")  # to itself: whoever reads it gets an OSError
    assert llamamgr("daemon", "reload").returncode == 2
    daemon.process.send_signal(signal.SIGHUP)
    until(lambda: "refused, nothing has changed" in daemon.log.read_text())
    daemon.post("/api/chat", chat(stream=False))
    assert "Traceback" not in daemon.log.read_text()


def test_a_watched_configuration_is_read_when_it_changes_and_a_broken_one_is_told_once(home_with_models):
    path = home_with_models / "config" / "config.toml"
    start = f'models_dirs = ["{home_with_models}/gguf"]\nwatch_config = true\n'
    path.write_text(start)
    daemon = Daemon(home_with_models)
    try:
        daemon.post("/api/chat", chat(stream=False))
        [before] = daemon.children()
        path.write_text(start + "[models.tinychat]\nparalel = 2\n")
        until(lambda: "refused, nothing has changed" in daemon.log.read_text(), 30)
        path.write_text(start + '[models.tinychat]\naliases = ["watched"]\n')
        until(lambda: "configuration read anew" in daemon.log.read_text(), 30)
        daemon.post("/api/chat", chat(stream=False, model="watched"))
        assert before["pid"] in [child["pid"] for child in daemon.children()]
        assert daemon.log.read_text().count("refused, nothing has changed") == 1
    finally:
        daemon.stop()


def test_a_preloaded_model_is_there_before_anybody_asks(home_with_models):
    (home_with_models / "config" / "config.toml").write_text("[models.selftest]\npreload = true\n")
    daemon = Daemon(home_with_models)
    try:
        until(lambda: [child["state"] for child in daemon.children()] == ["ready"])
        assert [child["model"]["name"] for child in daemon.children()] == ["selftest:latest"]
    finally:
        daemon.stop()


def test_logs_show_an_engines_last_lines(daemon: Daemon):
    daemon.post("/api/chat", chat(stream=False))
    shown = llamamgr("logs", "selftest", "-n", "3")
    assert len(shown.stdout.splitlines()) == 3
    missing = llamamgr("logs", "nope")
    assert missing.returncode == 4


def test_ps_tells_how_fast_answers_came_and_what_was_planned(daemon: Daemon):
    daemon.post("/api/chat", chat(stream=False))
    [child] = daemon.children()
    assert child["tokens_per_second"] > 1
    assert child["memory_planned"] > 0
    assert len(llamamgr("ps").stdout.splitlines()[0]) <= 80
    shown = llamamgr("ps", "-v").stdout.splitlines()
    assert {"PLANNED", "TOKENS/S", "UNTIL"} <= set(shown[0].split())
    assert shown[1].split().count("-") == 1  # no GPU, and nothing else unknown


def test_stop_now_ends_a_model_in_the_middle_of_a_request(daemon: Daemon):
    _, response, connection = _read_raw(daemon.url, "/api/chat", chat(text=selftest.ENDLESS_PROMPT))
    assert llamamgr("stop", "selftest", "--now").returncode == 0
    with pytest.raises(Exception, match=r"IncompleteRead|0 bytes|reset|error"):
        data = b""
        while piece := response.read1(65536):
            data += piece
        raise AssertionError("error" if b'"error"' in data else "no error was told")
    connection.close()
    until(lambda: daemon.children() == [])


def test_stop_now_does_not_bring_a_model_back_for_a_request_that_had_seen_nothing(daemon: Daemon):
    body = chat(text=selftest.ENDLESS_PROMPT, stream=False)
    with concurrent.futures.ThreadPoolExecutor(1) as asking:
        asked = asking.submit(daemon.post, "/api/chat", body)
        until(lambda: any(child["busy"] for child in daemon.children()))
        assert llamamgr("stop", "selftest", "--now").returncode == 0
        with pytest.raises(AssertionError, match=r"503: .*selftest:latest was unloaded while it answered"):
            asked.result(DEADLINE)
    assert daemon.children() == []


def test_the_daemon_under_load_answers_or_tells_an_error_when_it_is_stopped(daemon: Daemon):
    """What ends within the drain is answered; what does not is told an error and cut, in its own dialect."""
    body = chat(text=selftest.ENDLESS_PROMPT) | {"options": {"num_ctx": 16384}}
    streams = [
        _read_raw(daemon.url, path, body) for path in ("/api/chat", "/v1/chat/completions") for _ in range(2)
    ]
    daemon.process.send_signal(signal.SIGTERM)
    for received, response, connection in streams:
        last = _last_line(received, response)
        connection.close()
        assert last == "[DONE]" or last.get("done") or "shutting down" in json.dumps(last["error"]), last
    assert daemon.process.wait(40) == 0
    assert not [p for p in psutil.process_iter() if _is_engine_of(p, daemon)]


def _last_line(received: bytes, response: http.client.HTTPResponse) -> Any:
    with contextlib.suppress(http.client.IncompleteRead, OSError):
        while piece := response.read1(65536):
            received += piece
    last = received.strip().splitlines()[-1].removeprefix(b"data: ")
    return "[DONE]" if last == b"[DONE]" else json.loads(last)


def _is_engine_of(process: psutil.Process, daemon: Daemon) -> bool:
    try:
        return any(str(daemon.home) in word for word in process.cmdline())
    except psutil.Error:
        return False
