"""The rung below llama-server: llama-cli, asked once per answer."""

from __future__ import annotations

import asyncio
import logging
import threading
import time

import msgspec
import psutil
import pytest

from llamamgr import LlamaServer
from llamamgr.core.errors import EngineError, MissingToolError, UsageError
from llamamgr.daemon.conversation import chat_request
from llamamgr.daemon.one_shot import flattened, read_transcript
from llamamgr.wire.neutral import Finished, TextDelta

ANSWER = "Hello from the tiny llama."
CLI_ONLY = ("llama-cli",)


def said(messages: object, **parameters: object) -> tuple[str, str]:
    return flattened(chat_request(messages, parameters))


def test_one_turn_stays_as_it_is_and_several_are_told_apart_by_their_roles():
    assert said("two\nlines\n") == ("", "two\nlines")
    turns = [("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello"), ("user", "Bye")]
    assert said([{"role": role, "content": text} for role, text in turns]) == (
        "Be kind.",
        "User: Hi\n\nAssistant: Hello\n\nUser: Bye\n\nAssistant:",
    )
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert said([{"role": "user", "content": parts}]) == ("", "ab")


def test_a_prompt_can_be_no_command_of_the_program():
    assert said("/exit")[1] == " /exit"


@pytest.mark.parametrize(
    ("messages", "what"),
    [
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}], "images"),
        ([{"role": "tool", "tool_call_id": "1", "content": "x"}], "tools"),
        ([{"role": "system", "content": "x"}], "no prompt"),
        (" \n", "no prompt"),
    ],
)
def test_what_one_prompt_cannot_say_is_refused(messages, what):
    with pytest.raises(UsageError, match=what):
        said(messages)


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("User:\nhi\n\nAssistant:\nyes\n\n", ("", "yes")),
        ("User:\nhi\n\nAssistant:\nyes\n\nno\n\n", ("", "yes\n\nno")),
        ("User:\nhi\n\nAssistant:\n[Start thinking]\n\nhm\n[End thinking]\n\nyes\n\n", ("hm", "yes")),
        ("User:\nhi\n\nAssistant:\n\n", ("", "")),
        ("User:\nother\n\nAssistant:\nyes\n\n", None),
        ("", None),
    ],
)
def test_the_transcript_gives_thinking_and_answer(tmp_path, written, found):
    (tmp_path / "t").write_text(written)
    assert read_transcript(tmp_path / "t", "hi") == found


def test_without_a_llama_server_llama_cli_answers_and_it_is_said_aloud(install_fake, caplog, own_home):
    root = install_fake("cli-think", CLI_ONLY)
    with caplog.at_level(logging.WARNING), LlamaServer("selftest", context=256) as server:
        server.start()
        assert "has no llama-server" in caplog.text
        reply = server.chat([{"role": "system", "content": "Be kind."}, {"role": "user", "content": "hello"}])
        assert (reply.text, reply.thinking) == (ANSWER, "Let me think.")
        assert [type(event) for event in server.stream("hello").events()][-2:] == [TextDelta, Finished]
        server.chat("hello", temperature=0, max_tokens=5, think=False)
        with pytest.raises(MissingToolError, match="no address"):
            server.base_url  # noqa: B018
        assert not [*own_home.rglob("ask-*")], "what was said does not lie about"
    argv = (root / "bin" / "argv").read_text().splitlines()
    wished = {"--temp": "0", "--predict": "5", "--reasoning": "off"}
    assert {name: argv[argv.index(name) + 1] for name in wished} == wished
    assert argv[argv.index("--ctx-size") + 1] == "256"
    assert "hello" not in argv  # every user may read a command line


@pytest.mark.parametrize(
    ("parameters", "what"),
    [
        ({"stop": ["x"]}, "stop"),
        ({"tools": [{}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"think": "high"}, "--reasoning-effort"),
    ],
)
def test_nothing_that_is_asked_for_is_dropped_in_silence(install_fake, parameters, what):
    install_fake("", CLI_ONLY)
    with LlamaServer("selftest") as server, pytest.raises(UsageError, match=f"cannot be asked for: {what}"):
        server.chat("hello", **parameters)


@pytest.mark.parametrize(
    ("fault", "error", "what"),
    [
        ("cli-error", EngineError, r"exit code 0\): request \(9 tokens\) exceeds"),
        ("cli-exit=3", EngineError, r"exit code 3\): Loading model"),
        ("cli-old", MissingToolError, "it has no --output"),
    ],
)
def test_a_llama_cli_without_an_answer_is_a_clear_error(install_fake, fault, error, what):
    install_fake(fault, CLI_ONLY)
    with LlamaServer("selftest") as server, pytest.raises(error, match=what):
        server.chat("hello")


def test_closing_ends_a_llama_cli_at_work(install_fake):
    root = install_fake("cli-hang", CLI_ONLY)
    server = LlamaServer("selftest")
    told: list[EngineError] = []

    def ask() -> None:
        try:
            server.chat("hello")
        except EngineError as error:
            told.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    deadline = time.monotonic() + 10
    while not (root / "bin" / "argv").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    server.close()
    asking.join()
    assert "closed before" in told[0].what
    assert psutil.Process().children() == []


async def test_a_cancelled_question_ends_its_llama_cli(install_fake):
    install_fake("cli-hang", CLI_ONLY)
    async with LlamaServer("selftest") as server:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await server.achat("hello")
        async with asyncio.timeout(5):
            while psutil.Process().children():
                await asyncio.sleep(0.01)


def test_a_build_with_neither_program_is_named(install_fake):
    install_fake("", ())
    with LlamaServer("selftest") as server, pytest.raises(MissingToolError, match="neither llama-server nor"):
        server.chat("hello")


def test_schemas_in_any_spelling_reach_the_engine():
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    spellings = [
        {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
        {"type": "json_schema", "schema": schema},
        {"type": "json_object", "schema": schema},
    ]
    for spelling in spellings:
        asked = chat_request("hi", {"response_format": spelling}).response_format
        assert msgspec.json.decode(asked.schema) == schema
