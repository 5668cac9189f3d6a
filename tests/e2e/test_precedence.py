"""Tools beside a format of the answer, on a real llama-server: the model calls first, and answers in the format then."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

from llamamgr.models.selftest import TOOL_NAME
from tests.e2e.conftest import Daemon

pytestmark = pytest.mark.real

SCHEMA: Any = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Paris"]}},
    "required": ["city"],
    "additionalProperties": False,
}
FUNCTION: Any = {"name": TOOL_NAME, "parameters": SCHEMA}
FORMAT: Any = {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}
OFF: Any = {"chat_template_kwargs": {"enable_thinking": False}}
CHOICES: Any = ("auto", "required", {"type": "function", "function": {"name": TOOL_NAME}})


@pytest.fixture
def client(daemon: Daemon) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{daemon.url}/v1", api_key="unused", max_retries=0) as client:
        yield client


@pytest.mark.parametrize("choice", CHOICES)
def test_a_chat_calls_first_and_answers_in_the_format(client: openai.OpenAI, choice: Any) -> None:
    turns: Any = [{"role": "user", "content": "weather?"}]
    asked: Any = {
        "model": "selftest",
        "tools": [{"type": "function", "function": FUNCTION}],
        "extra_body": OFF,
        "response_format": FORMAT,
        "max_tokens": 100,
    }
    said = client.chat.completions.create(messages=turns, tool_choice=choice, **asked).choices[0]
    assert said.finish_reason == "tool_calls"
    [call] = said.message.tool_calls or []
    chunks = list(client.chat.completions.create(messages=turns, tool_choice=choice, stream=True, **asked))
    streamed = [one for chunk in chunks for one in chunk.choices[0].delta.tool_calls or ()]
    assert (streamed[0].function or call.function).name == call.function.name == TOOL_NAME  # type: ignore[union-attr]
    turns += [
        said.message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "sun"},
    ]
    after = client.chat.completions.create(messages=turns, tool_choice="auto", **asked).choices[0]
    assert json.loads(after.message.content or "") == {"city": "Paris"}


def test_responses_and_messages_do_so_too(client: openai.OpenAI, daemon: Daemon) -> None:
    asked: Any = {
        "model": "selftest",
        "tools": [{"type": "function", **FUNCTION}],
        "reasoning": {"effort": "none"},
        "text": {"format": {"type": "json_schema", "name": "a", "schema": SCHEMA}},
    }
    for choice in ("auto", {"type": "function", "name": TOOL_NAME}):
        told = client.responses.create(input="weather?", tool_choice=choice, **asked)  # type: ignore[call-overload]
        [call] = told.output
        assert call.type == "function_call"
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "sun"}
    after = client.responses.create(input=[result], previous_response_id=told.id, **asked)
    assert json.loads(after.output_text) == {"city": "Paris"}
    with anthropic.Anthropic(base_url=daemon.url, api_key="unused", max_retries=0) as claude:
        body: Any = {
            "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
            "thinking": {"type": "disabled"},
        }
        message = claude.messages.create(
            model="selftest",
            max_tokens=100,
            messages=[{"role": "user", "content": "weather?"}],
            tools=[{"name": TOOL_NAME, "input_schema": SCHEMA}],
            extra_body=body,
        )
    assert [block.type for block in message.content] == ["tool_use"]
