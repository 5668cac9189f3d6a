"""The official Anthropic client against the running thing."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest

from llamamgr.models import selftest
from tests.e2e.conftest import Daemon

pytestmark = pytest.mark.real
ASK: Any = [{"role": "user", "content": "hello"}]
WEATHER: Any = {
    "name": selftest.TOOL_NAME,
    "description": "the weather of a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


@pytest.fixture
def client(daemon: Daemon) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=daemon.url, api_key="unused", max_retries=0) as client:
        yield client


def test_a_message_has_text_usage_and_a_reason(client: anthropic.Anthropic) -> None:
    told = client.messages.create(model="selftest", max_tokens=100, messages=ASK, system="be kind")
    assert [block.type for block in told.content] == ["text"]
    assert told.content[0].text == selftest.ANSWER  # type: ignore[union-attr]
    assert (told.stop_reason, told.model) == ("end_turn", "selftest")
    assert told.usage.input_tokens > 5
    assert told._request_id
    cut = client.messages.create(model="selftest", max_tokens=2, messages=ASK)
    assert cut.stop_reason == "max_tokens"
    stopped = client.messages.create(model="selftest", max_tokens=100, messages=ASK, stop_sequences=[" fed"])
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", " fed")


def test_a_streamed_message_is_put_together_as_the_whole_one(client: anthropic.Anthropic) -> None:
    with client.messages.stream(model="selftest", max_tokens=100, messages=ASK) as stream:
        assert "".join(stream.text_stream) == selftest.ANSWER
        final = stream.get_final_message()
    whole = client.messages.create(model="selftest", max_tokens=100, messages=ASK)
    assert [block.text for block in final.content] == [block.text for block in whole.content]  # type: ignore[union-attr]
    assert (final.stop_reason, final.usage.output_tokens) == (whole.stop_reason, whole.usage.output_tokens)


def test_thoughts_are_signed_blocks_within_their_budget_and_can_be_sent_back(
    client: anthropic.Anthropic,
) -> None:
    thinking: Any = {"type": "enabled", "budget_tokens": 1024}
    with client.messages.stream(model="selftest", max_tokens=2000, messages=ASK, thinking=thinking) as stream:
        final = stream.get_final_message()
    thought, text = final.content
    assert thought.type == "thinking"
    assert text.type == "text"
    assert (thought.thinking, text.text) == (selftest.THOUGHT, selftest.ANSWER)
    assert thought.signature
    again: Any = [*ASK, {"role": "assistant", "content": final.content}, *ASK]
    assert client.messages.create(model="selftest", max_tokens=100, messages=again).stop_reason == "end_turn"
    short: Any = {"type": "enabled", "budget_tokens": 2}
    cut = client.messages.create(model="selftest", max_tokens=2000, messages=ASK, thinking=short)
    assert cut.content[0].thinking == "They want"  # type: ignore[union-attr]


@pytest.mark.parametrize("choice", [None, {"type": "any"}, {"type": "tool", "name": selftest.TOOL_NAME}])
def test_a_tool_is_called_and_its_result_taken(client: anthropic.Anthropic, choice: Any) -> None:
    more = {"tool_choice": choice} if choice else {}
    with client.messages.stream(
        model="selftest", max_tokens=100, messages=ASK, tools=[WEATHER], **more
    ) as stream:
        called = stream.get_final_message()
    [call] = [block for block in called.content if block.type == "tool_use"]
    assert (call.name, call.input, called.stop_reason) == (
        selftest.TOOL_NAME,
        selftest.TOOL_ARGUMENTS,
        "tool_use",
    )
    result = {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "sunny"}]}
    turns: Any = [
        *ASK,
        {"role": "assistant", "content": called.content},
        {"role": "user", "content": [result]},
    ]
    after = client.messages.create(model="selftest", max_tokens=100, messages=turns, tools=[WEATHER])
    assert after.content[0].text == selftest.ANSWER  # type: ignore[union-attr]


def test_tokens_are_counted_as_a_message_would_be_charged(client: anthropic.Anthropic) -> None:
    asked: Any = {"model": "selftest", "messages": ASK, "system": "be kind", "tools": [WEATHER]}
    counted = client.messages.count_tokens(**asked)
    assert counted.input_tokens == client.messages.create(max_tokens=5, **asked).usage.input_tokens


def test_a_cached_prompt_is_told_to_a_client_that_asked_for_caching(client: anthropic.Anthropic) -> None:
    system: Any = [{"type": "text", "text": "be kind " * 50, "cache_control": {"type": "ephemeral"}}]
    first, second = (
        client.messages.create(model="selftest", max_tokens=5, messages=ASK, system=system).usage
        for _ in range(2)
    )
    assert second.cache_read_input_tokens
    total = first.input_tokens + (first.cache_read_input_tokens or 0)
    assert second.input_tokens + second.cache_read_input_tokens == total


def test_the_stamp_of_claude_code_does_not_spoil_the_prompt_cache(client: anthropic.Anthropic) -> None:
    def read(stamp: str) -> int:
        header = f"x-anthropic-billing-header: cc_version=2.1.101.e51; cc_entrypoint=cli; cch={stamp};"
        system: Any = [
            {"type": "text", "text": header},
            {"type": "text", "text": "You are a llama. " * 50, "cache_control": {"type": "ephemeral"}},
        ]
        told = client.messages.create(model="selftest", max_tokens=5, messages=ASK, system=system)
        return told.usage.input_tokens

    read("a5145")
    assert read("b6256") <= 2


def test_models_are_listed_and_found(client: anthropic.Anthropic) -> None:
    names = [model.id for model in client.models.list(limit=1)]  # page by page
    assert {"selftest:latest", "tinychat:latest", "tinyembed:latest"} <= set(names)
    assert client.models.retrieve("selftest").type == "model"


def test_errors_have_their_classes(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError):
        client.messages.create(model="nope", max_tokens=5, messages=ASK)
    with pytest.raises(anthropic.BadRequestError, match="messages is required"):
        client.messages.create(model="selftest", max_tokens=5, messages=[])


def test_a_killed_engine_is_an_error_in_the_stream_and_never_its_end(
    client: anthropic.Anthropic, daemon: Daemon
) -> None:
    endless: Any = [{"role": "user", "content": selftest.ENDLESS_PROMPT}]
    stream = client.messages.create(model="selftest", max_tokens=100_000, messages=endless, stream=True)
    for event in stream:
        if event.type == "content_block_delta":
            break
    os.kill(daemon.children()[0]["pid"], signal.SIGKILL)
    with pytest.raises(anthropic.APIError, match="SIGKILL"):
        list(stream)
