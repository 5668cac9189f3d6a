"""What OpenAI's and Anthropic's clients are told of a body that cannot be read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llamamgr.wire import anthropic, embeddings, openai_chat, openai_completions, responses_request
from llamamgr.wire.errors import DialectError

TURN = {"role": "user", "content": "x"}
OPENAI: dict[str, Any] = {
    "chat": openai_chat.prepare,
    "text": openai_completions.parse,
    "embeddings": embeddings.parse_v1,
    "responses": responses_request.parse,
}


def refusal(parse: Any, body: bytes) -> DialectError:
    with pytest.raises(DialectError) as refused:
        parse(body)
    assert refused.value.status == 400
    return refused.value


@pytest.mark.parametrize(
    ("kind", "fields", "param", "told"),
    [
        ("chat", {"stream": "x"}, "stream", "expected a boolean, but got a string instead."),
        (
            "chat",
            {"model": None, "messages": 1.5},
            "messages",
            "expected an array, but got a decimal instead.",
        ),
        (
            "chat",
            {"messages": [TURN, TURN, {"role": "user", "content": 5}]},
            "messages[2].content",
            "expected one of a string or an array, but got an integer instead.",
        ),
        (
            "chat",
            {"messages": [TURN, {"role": "user", "content": [{"type": "text"}, "x"]}]},
            "messages[1].content[1]",
            "expected an object, but got a string instead.",
        ),
        ("chat", {"messages": [TURN, None]}, "messages[1]", "expected an object, but got null instead."),
        (
            "chat",
            {"messages": [TURN], "reasoning": {"effort": 5}},
            "reasoning.effort",
            "expected a string, but got an integer instead.",
        ),
        ("text", {"max_tokens": 1.5}, "max_tokens", "expected an integer, but got a decimal instead."),
        ("embeddings", {"dimensions": "x"}, "dimensions", "expected an integer, but got a string instead."),
        ("responses", {"instructions": []}, "instructions", "expected a string, but got an array instead."),
        (
            "responses",
            {"model": "m", "input": "x", "tools": [{"type": "function", "name": 5}]},
            "tools[0].name",
            "expected a string, but got an integer instead.",
        ),
    ],
)
def test_openais_clients_are_told_the_field_what_it_must_be_and_what_it_is(
    kind: str, fields: dict[str, Any], param: str, told: str
) -> None:
    error = refusal(OPENAI[kind], json.dumps({"model": "m", **fields}).encode())
    assert (error.param, error.code) == (param, "invalid_type")
    assert error.message == f"Invalid type for '{param}': {told}"


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"temperature": "x"}, "temperature: Input should be a valid number"),
        ({"max_tokens": 1.5}, "max_tokens: Input should be a valid integer"),
        ({"system": 5}, "system: Input should be a valid string or list"),
        ({"messages": [TURN, {"role": 5}]}, "messages.1.role: Input should be a valid string"),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": [5]}]}
                ]
            },
            "messages.0.content.0.content.0: Input should be a valid dictionary",
        ),
    ],
)
def test_anthropics_clients_are_told_it_in_their_words(fields: dict[str, Any], told: str) -> None:
    body = {"model": "m", "max_tokens": 5, "messages": [TURN], **fields}
    error = refusal(anthropic.parse_messages, json.dumps(body).encode())
    assert error.message == told


def test_a_body_that_is_no_json_is_told_as_such() -> None:
    said = "invalid character ']' looking for beginning of value"
    error = refusal(openai_chat.prepare, b'{"model": ]')
    assert error.message == f"We could not parse the JSON body of your request: {said}"
    error = refusal(anthropic.parse_messages, b'{"model": ]')
    assert error.message == f"The request body is not valid JSON: {said}"


def test_a_body_that_is_no_object_is_told_as_such() -> None:
    error = refusal(openai_chat.prepare, b"[]")
    assert error.message == "Invalid type for the body: expected an object, but got an array instead."
    assert error.param is None
    error = refusal(anthropic.parse_messages, b"[]")
    assert error.message == "body: Input should be a valid dictionary"
