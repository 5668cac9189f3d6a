"""What a client sees when an engine dies, and what an engine sees of a client."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest

from llamamgr.models import selftest
from tests.e2e.conftest import until
from tests.e2e.peers.clients import ANTHROPIC, DIALECTS, OPENAI, Answer, ask, body_of, endless
from tests.e2e.peers.conftest import FAKES, A, B, child_of
from tests.fakes.launch import Launched


@pytest.mark.parametrize("path", DIALECTS)
def test_an_engine_that_dies_in_mid_stream_is_told_in_the_dialect_and_the_stream_is_cut(
    serve, engine, path, record_property
):
    daemon = serve(engine)
    answer = endless(daemon, A, path)
    killed = time.monotonic()
    os.kill(child_of(daemon, A)["pid"], signal.SIGKILL)
    answer.rest()
    assert not answer.clean
    assert "SIGKILL" in answer.error
    record_property("measured", f"{path}: error in the dialect, then cut, {_ms(killed)} after the kill")


@pytest.mark.parametrize("path", DIALECTS)
def test_an_engine_that_dies_before_its_first_byte_is_asked_again_and_a_second_death_is_told(
    serve, engine, path, record_property
):
    daemon = serve(engine)
    waiting = Answer(daemon.url, path, body_of(path, A, selftest.ENDLESS_PROMPT, stream=False))
    first = _kill_busy(daemon, 0)
    _kill_busy(daemon, first)
    waiting.rest()
    assert waiting.status == 502
    assert waiting.response.getheader("X-Request-Id")
    assert "SIGKILL" in waiting.error
    assert ask(daemon, A, path).status == 200
    record_property("measured", f"{path}: one silent retry, then 502 with the signal and a request id")


def _kill_busy(daemon, before: int) -> int:
    """Kill the child that answers a request, once it is another than ``before``; its pid."""

    def busy() -> list[int]:
        found = [c["pid"] for c in daemon.children() if c["state"] == "ready" and c["busy"]]
        return [pid for pid in found if pid != before]

    until(busy)
    [pid] = busy()
    os.kill(pid, signal.SIGKILL)
    return pid


def test_a_request_whose_engine_dies_once_is_answered_as_if_nothing_had_been(serve, engine, record_property):
    daemon = serve(engine)
    ask(daemon, A)
    pid = child_of(daemon, A)["pid"]
    os.kill(pid, signal.SIGSTOP)
    waiting = Answer(daemon.url, OPENAI, body_of(OPENAI, A, stream=False))
    until(lambda: child_of(daemon, A)["busy"] == 1)
    killed = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    waiting.rest()
    assert waiting.status == 200
    assert waiting.last["choices"][0]["message"]["content"] == selftest.ANSWER
    record_property("measured", f"200 from a new engine {_ms(killed)} after the kill")


@pytest.mark.parametrize("path", DIALECTS)
def test_a_long_generation_that_is_left_frees_its_slot(serve, engine, path, record_property):
    daemon = serve(engine)
    ask(daemon, A)
    answer = endless(daemon, A, path, tokens=10_000)
    answer.read_tokens(5)
    slots = _slots(daemon)
    assert slots() == 1
    left = time.monotonic()
    answer.leave()
    until(lambda: slots() == 0 and child_of(daemon, A)["busy"] == 0, 1.5)
    took = _ms(left)
    if engine.name == "real":
        assert _generated(daemon) < 9000, "it was not abandoned, it was finished"
    record_property("measured", f"{path}: slot free {took} after the client left (promise: 1500 ms)")


def _engine_of(daemon) -> Launched:
    [path] = (daemon.home / "run").glob("c[0-9]*.sock")
    return Launched(daemon.process, str(path), daemon.log)


def _slots(daemon):
    """How many slots the engine itself holds for busy."""
    engine = _engine_of(daemon)
    return lambda: engine.request("GET", "/slots")[2].replace(b" ", b"").count(b'"is_processing":true')


def _generated(daemon) -> float:
    figures = _engine_of(daemon).request("GET", "/metrics")[2].decode()
    found = re.search(r"^llamacpp:tokens_predicted_total (\S+)", figures, re.MULTILINE)
    assert found, figures
    return float(found[1])


@pytest.mark.parametrize("path", DIALECTS)
def test_no_credential_of_a_client_reaches_an_engine(serve, engine, path, record_property):
    record = Path(os.environ["LLAMAMGR_HOME"]) / "record"
    prelude = f'exec "{sys.executable}" -I "{FAKES / "recorder.py"}" "{record}" "$engine" "$@"'
    daemon = serve(engine, {A: {"env": {"ENGINE_PRELUDE": prelude}}})
    secret = {"Authorization": "Bearer secret-one", "X-Api-Key": "secret-two", "Cookie": "c=secret-three"}
    marked = body_of(path, A, "the marked words", stream=False)
    answer = Answer(daemon.url, path, marked, secret)
    answer.rest()
    assert answer.status == 200, answer.data
    native = Answer(daemon.url, f"/upstream/{A}/tokenize", {"content": "the marked words"}, secret)
    native.rest()
    assert native.status == 200, native.data
    seen = record.read_bytes()
    assert seen.count(b"the marked words") >= 2
    assert b"secret" not in seen
    record_property("measured", f"{path}: {len(seen)} bytes went to the engine, no credential among them")


def test_what_an_engine_is_told_to_keep_secret_is_in_no_argument(serve, engine, record_property):
    """A build without UNIX sockets listens on loopback behind a key of its own."""
    daemon = serve(engine, unix_socket=False)
    assert ask(daemon, A).status == 200
    pid = child_of(daemon, A)["pid"]
    key = _environment(pid)["LLAMA_API_KEY"]
    assert len(key) > 20
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert key.encode() not in process.read_bytes()
        except OSError:
            continue
    assert key not in daemon.log.read_text()
    record_property("measured", "the key is in no command line and no log")


def _environment(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(line.split("=", 1) for line in lines if "=" in line)


def test_the_control_channel_answers_while_every_slot_generates(serve, engine, record_property):
    daemon = serve(engine, {A: {"parallel": 2}})
    answers = [endless(daemon, A, ANTHROPIC) for _ in range(2)]
    taken = []
    for _ in range(20):
        asked = time.monotonic()
        daemon.children()
        taken.append(time.monotonic() - asked)
    for answer in answers:
        answer.leave()
    assert max(taken) < 1.0
    record_property("measured", f"20 times `ps` beside 2 generations: {max(taken) * 1000:.0f} ms at most")


def test_a_load_that_fails_is_a_status_and_never_a_stream(serve, engine, record_property):
    daemon = serve(engine, {A: {"env": {"ENGINE_PRELUDE": "echo no such device; exit 3"}}})
    answer = Answer(daemon.url, OPENAI, body_of(OPENAI, A))
    answer.rest()
    assert answer.status >= 500
    assert "exited with code 3" in answer.error
    assert "no such device" in answer.error
    started = time.monotonic()
    answers = [ask(daemon, A, OPENAI) for _ in range(10)]
    told = [answer for answer in answers if answer.response.getheader("Retry-After")]
    assert len(told) >= 8, [answer.status for answer in answers]
    assert ask(daemon, B).status == 200
    record_property(
        "measured",
        f"code and log line told; {len(told)} of 10 more answered 503 with Retry-After in {_ms(started)}",
    )


def _ms(since: float) -> str:
    return f"{(time.monotonic() - since) * 1000:.0f} ms"
