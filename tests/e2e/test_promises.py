"""What the first release must show, on a real llama-server."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import subprocess
import sys
import urllib.parse

import aiohttp
import psutil
import pytest

from llamamgr.models import selftest
from tests.e2e.conftest import Daemon, llamamgr, until

pytestmark = pytest.mark.real


def chat(stream: bool = True, model: str = "selftest", text: str = "hello") -> dict[str, object]:
    return {"model": model, "messages": [{"role": "user", "content": text}], "stream": stream}


def test_the_first_chat_answers_the_known_sentence(daemon: Daemon):
    answer = daemon.post("/api/chat", chat(stream=False))
    assert answer["message"]["content"] == selftest.ANSWER
    assert answer["done_reason"] == "stop"
    assert answer["eval_count"] > 0


async def _streamed(session: aiohttp.ClientSession, url: str) -> str:
    async with session.post(f"{url}/api/chat", json=chat()) as answer:
        assert answer.status == 200
        lines = [json.loads(line) async for line in answer.content]
    assert lines[-1]["done"] is True
    return "".join(line["message"]["content"] for line in lines)


async def test_a_thousand_sequential_streaming_chats_lose_none(daemon: Daemon):
    async with aiohttp.ClientSession() as session:
        for _ in range(1000):
            assert await _streamed(session, daemon.url) == selftest.ANSWER


async def test_sixteen_clients_with_a_hundred_streaming_chats_each_lose_none(daemon: Daemon):
    async def client() -> list[str]:
        async with aiohttp.ClientSession() as session:
            return [await _streamed(session, daemon.url) for _ in range(100)]

    answers = await asyncio.gather(*(client() for _ in range(16)))
    assert {text for texts in answers for text in texts} == {selftest.ANSWER}
    assert [child["busy"] for child in daemon.children()] == [0]


def test_after_kill_9_of_the_daemon_no_child_lives_and_the_next_start_works(daemon: Daemon):
    daemon.post("/api/chat", chat(stream=False))
    [child] = daemon.children()
    daemon.process.kill()
    until(
        lambda: not psutil.pid_exists(child["pid"]) or psutil.Process(child["pid"]).status() == "zombie", 1.0
    )
    daemon.restart()
    assert daemon.children() == []
    assert daemon.post("/api/chat", chat(stream=False))["message"]["content"] == selftest.ANSWER


def _read_raw(
    url: str, path: str, body: object
) -> tuple[bytes, http.client.HTTPResponse, http.client.HTTPConnection]:
    where = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=30)
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    return response.read1(1), response, connection


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate", "/v1/chat/completions"])
def test_a_child_killed_in_mid_stream_gives_an_error_in_the_clients_dialect_and_no_clean_end(
    daemon: Daemon, path: str
):
    body = chat(text=selftest.ENDLESS_PROMPT) | {"prompt": selftest.ENDLESS_PROMPT}
    received, response, connection = _read_raw(daemon.url, path, body)
    os.kill(daemon.children()[0]["pid"], signal.SIGKILL)
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        while data := response.read1(65536):
            received += data
        raise AssertionError("the stream ended as if all were well")
    connection.close()
    last = received.strip().splitlines()[-1].removeprefix(b"data: ")
    message = json.loads(last)["error"]
    assert "SIGKILL" in (message if path.startswith("/api") else message["message"])
    assert daemon.post("/api/chat", chat(stream=False))["message"]["content"] == selftest.ANSWER


def test_a_client_that_leaves_frees_its_slot(daemon: Daemon):
    _, response, connection = _read_raw(daemon.url, "/api/chat", chat(text=selftest.ENDLESS_PROMPT))
    assert daemon.children()[0]["busy"] == 1
    response.close()
    connection.close()
    until(lambda: daemon.children()[0]["busy"] == 0, 3.0)


def test_run_spawns_the_daemon_answers_and_stop_ends_it(home_with_models, monkeypatch):
    monkeypatch.setenv("LLAMAMGR_HOST", "127.0.0.1:0")
    first = llamamgr("run", "selftest", "hello")
    assert (first.returncode, first.stdout.strip()) == (0, selftest.ANSWER), first.stderr
    assert "Daemon not running, starting it automatically..." in first.stderr
    second = llamamgr("run", "selftest", stdin="hello")
    assert (second.stdout.strip(), second.stderr) == (selftest.ANSWER, "")
    listed = llamamgr("ps")
    assert "selftest:latest" in listed.stdout
    assert llamamgr("stop", "selftest").returncode == 0
    assert "stopped" in llamamgr("stop").stdout
    assert llamamgr("ps").returncode == 3


def test_two_commands_at_once_spawn_one_daemon(home_with_models, monkeypatch):
    monkeypatch.setenv("LLAMAMGR_HOST", "127.0.0.1:0")
    command = [sys.executable, "-m", "llamamgr", "run", "selftest", "hello"]
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    answers = [process.communicate(timeout=60) for process in both]
    assert [out.strip() for out, _ in answers] == [selftest.ANSWER] * 2, answers
    pids = {
        process.environ().get("LLAMAMGR_HOME"): process.pid for process in _daemons(str(home_with_models))
    }
    assert len(pids) == 1
    assert len(_daemons(str(home_with_models))) == 1
    llamamgr("stop")


def _daemons(home: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("LLAMAMGR_HOME") == home and process.cmdline()[-1:] == ["serve"]:
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_a_port_in_use_is_refused_with_the_name_of_its_holder(daemon: Daemon, tmp_path):
    port = urllib.parse.urlsplit(daemon.url).port
    other = llamamgr("serve", "--host", f"127.0.0.1:{port}", env={"LLAMAMGR_HOME": str(tmp_path / "h")})
    assert other.returncode == 5
    assert str(daemon.process.pid) in other.stderr
    assert "hint:" in other.stderr


def test_a_second_daemon_of_one_home_is_refused(daemon: Daemon):
    other = llamamgr("serve", "--host", "127.0.0.1:0")
    assert other.returncode == 5
    assert "hint:" in other.stderr


def test_an_unknown_model_and_a_corrupt_file_are_clear_errors(daemon: Daemon):
    (daemon.home / "gguf" / "broken.gguf").write_bytes(b"GGUF\x03\x00\x00\x00" + b"\xff" * 64)
    unknown = llamamgr("run", "nope", "hello")
    assert unknown.returncode == 4
    assert "not found" in unknown.stderr
    listed = llamamgr("list", "--json")
    assert [skipped["path"].rsplit("/")[-1] for skipped in json.loads(listed.stdout)["skipped"]] == [
        "broken.gguf"
    ]
    assert daemon.post("/api/chat", chat(stream=False))["message"]["content"] == selftest.ANSWER


def test_server_serves_selftest_with_no_other_flag(home_with_models):
    socket_path = str(home_with_models / "s.sock")
    command = [
        sys.executable,
        "-m",
        "llamamgr",
        "server",
        "--instance",
        "default",
        "--",
        "--host",
        socket_path,
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        from tests.fakes.launch import Launched

        server = Launched(process, socket_path, home_with_models / "none")
        server.wait_healthy()
        status, _, body = server.request("POST", "/v1/chat/completions", json.dumps(chat(stream=False)))
        assert status == 200
        assert json.loads(body)["choices"][0]["message"]["content"] == selftest.ANSWER
    finally:
        process.terminate()
        process.wait(20)
