"""A private server over a real llama-server, and over a real llama-cli."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import msgspec
import openai
import psutil
import pytest

from llamamgr import LlamaServer
from llamamgr.core.cards import Build
from llamamgr.core.errors import EngineError, UsageError
from llamamgr.instances.card_files import dump
from llamamgr.models import selftest
from tests.e2e.conftest import llamamgr, until

pytestmark = pytest.mark.real

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "function": {"name": selftest.TOOL_NAME, "parameters": SCHEMA}}


@pytest.fixture(autouse=True)
def only_own_temporary_files(own_temporary_files: None) -> None:
    """The folder of an owner that is killed stays until the next one comes, or here until the test ends."""


@pytest.fixture
def build_without_server(real_build: Build, own_home: Path) -> None:
    """The real build as another instance, with every program but llama-server."""
    card = msgspec.structs.replace(real_build.card, instance="bare")
    root = own_home / "data" / "instances" / "bare" / "builds" / card.id
    (root / "bin").mkdir(parents=True)
    for program in (Path(real_build.root) / "bin").iterdir():
        if program.name != "llama-server":
            (root / "bin" / program.name).symlink_to(program)
    (root / "lib").symlink_to(Path(real_build.root) / "lib")
    instance = root.parent.parent
    (instance / "instance.toml").write_text('name = "bare"\n')
    (root / "build.toml").write_text(dump(card))
    (instance / "current").symlink_to(Path("builds") / card.id)


def test_it_says_the_known_sentence_thinks_and_calls_tools(real_build):
    with LlamaServer("selftest") as server:
        assert server.chat("hello", think=False).text == selftest.ANSWER
        thoughtful = server.chat("hello", think=True)
        assert (thoughtful.thinking.strip(), thoughtful.text) == (selftest.THOUGHT, selftest.ANSWER)
        schema = {"type": "json_schema", "schema": SCHEMA}
        assert server.chat("x", think=False, response_format=schema).text.startswith('{"city"')
        [call] = server.chat("weather?", tools=[WEATHER]).tool_calls
        assert call.name == selftest.TOOL_NAME
        stream = server.stream("hello", think=False)
        assert "".join(stream) == selftest.ANSWER
        assert stream.reply.usage.completion > 5


async def test_the_same_over_a_unix_socket_for_a_program_with_a_loop(real_build):
    async with LlamaServer("selftest", transport="unix", parallel=2) as server:
        replies = await asyncio.gather(*(server.achat("hello", think=False) for _ in range(6)))
        assert {reply.text for reply in replies} == {selftest.ANSWER}
        assert "".join([text async for text in server.astream("hello")]) == selftest.ANSWER


def test_the_official_client_takes_its_address_and_key(real_build):
    with (
        LlamaServer("selftest") as server,
        openai.OpenAI(base_url=server.base_url, api_key=server.api_key) as client,
    ):
        answer = client.chat.completions.create(
            model="selftest", messages=[{"role": "user", "content": "hello"}]
        )
        assert answer.choices[0].message.content == selftest.ANSWER


def test_leaving_a_stream_frees_the_only_slot_at_once(real_build):
    with LlamaServer("selftest", parallel=1) as server:
        for count, _ in enumerate(server.stream(selftest.ENDLESS_PROMPT, max_tokens=10_000)):
            if count == 5:
                break
        assert server.chat("hello", think=False).text == selftest.ANSWER
        told = httpx.get(
            server.base_url.removesuffix("/v1") + "/metrics",
            headers={"Authorization": f"Bearer {server.api_key}"},
            timeout=30,
        )
        counters = dict(line.split() for line in told.text.splitlines() if not line.startswith("#"))
        generated = float(counters["llamacpp:tokens_predicted_total"])
        assert generated < 2_000, "the answer that nobody reads was written to its end"


def test_a_killed_child_is_replaced_once(real_build):
    with LlamaServer("selftest") as server:
        os.kill(server.pid, signal.SIGKILL)
        assert server.chat("hello").text == selftest.ANSWER
        stream = iter(server.stream(selftest.ENDLESS_PROMPT))
        next(stream)
        os.kill(server.pid, signal.SIGKILL)
        with pytest.raises(EngineError, match="SIGKILL"):
            for _ in stream:
                pass


def test_after_kill_9_of_its_owner_the_child_is_gone_within_a_second(real_build):
    script = (
        "import llamamgr, threading\n"
        "server = llamamgr.LlamaServer('selftest')\n"
        "starter = threading.Thread(target=server.start); starter.start(); starter.join()\n"
        "print(server.pid, flush=True)\n"
        "for text in server.stream('count forever'): pass\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    child = psutil.Process(int(owner.stdout.readline()))
    owner.kill()
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, 1.0)
    owner.communicate()


def test_run_private_starts_and_asks_no_daemon(real_build, own_home):
    done = llamamgr("run", "--private", "selftest", "hello", "--verbose")
    assert (done.returncode, done.stdout.strip()) == (0, selftest.ANSWER), done.stderr
    assert "tokens/s" in done.stderr
    assert not (own_home / "run").exists()
    assert llamamgr("run", "--private", "nope", "hello").returncode == 4


def test_a_real_llama_cli_answers_where_there_is_no_llama_server(build_without_server, own_home):
    with LlamaServer("selftest", instance="bare", context=256) as server:
        thoughtful = server.chat("/exit\nhello")
        assert (thoughtful.thinking.strip(), thoughtful.text) == (selftest.THOUGHT, selftest.ANSWER)
        turns = [("system", "Be kind."), ("user", "hi"), ("assistant", "yes?"), ("user", 'a\\n"b"')]
        reply = server.chat([{"role": role, "content": text} for role, text in turns], think=False)
        assert (reply.thinking, reply.text) == ("", selftest.ANSWER)
        limited = server.chat("hello", think=False, max_tokens=3, temperature=0, seed=1)
        assert limited.text == "Every llama here"
        assert server.chat("x", think=False, grammar='root ::= "ab"').text == "ab"
        with pytest.raises(EngineError, match="exceeds the available context size"):
            server.chat("many words " * 400)
        with pytest.raises(UsageError, match="tools"):
            server.chat("weather?", tools=[WEATHER])
    done = llamamgr("run", "--private", "selftest", "hello", env={"LLAMAMGR_INSTANCE": "bare"})
    assert (done.returncode, done.stdout.strip()) == (0, selftest.ANSWER), done.stderr
    assert "has no llama-server" in done.stderr
