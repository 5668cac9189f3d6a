"""A chat of OpenAI's as a neutral one, for prompts that are made here."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from llamamgr.wire.errors import DialectError
from llamamgr.wire.neutral import JsonObject, JsonSchema, MediaPart, Message, TextPart, ToolCall
from llamamgr.wire.openai_chat_turns import TranslatedChat, parse

HI = [{"role": "user", "content": "hi"}]


def read(**body: Any) -> TranslatedChat:
    return parse(msgspec.json.encode({"model": "m", "messages": HI, **body}))


def test_turns_keep_words_thoughts_calls_and_results() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    turns = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]},
        {"role": "assistant", "content": None, "reasoning_content": "hm", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
    ]
    assert read(messages=turns).chat.messages == (
        Message("system", "be brief"),
        Message("user", "one\ntwo"),
        Message("assistant", thinking="hm", tool_calls=(ToolCall("c1", "f", '{"a": 1}'),)),
        Message("tool", "sunny", tool_name="f", tool_call_id="c1"),
    )


def test_arguments_may_be_the_object_itself() -> None:
    call = {"id": "c", "function": {"name": "f", "arguments": {"a": 1}}}
    [turn] = read(messages=[{"role": "assistant", "tool_calls": [call]}]).chat.messages
    assert isinstance(turn, Message)
    assert turn.tool_calls[0].arguments == '{"a":1}'


def test_what_is_not_openais_goes_on_to_the_engine() -> None:
    chat = read(top_k=3, cache_prompt=False, max_tokens=5, user="me", stream=True, n=1).chat
    told = {name: bytes(value) for name, value in chat.sampling.items() if isinstance(value, msgspec.Raw)}
    assert told == {"top_k": b"3", "cache_prompt": b"false", "max_tokens": b"5"}


@pytest.mark.parametrize(
    ("body", "think"),
    [
        ({}, None),
        ({"reasoning_effort": "none"}, False),
        ({"reasoning_effort": "low"}, "low"),
        ({"chat_template_kwargs": {"enable_thinking": False}}, False),
        ({"chat_template_kwargs": {"enable_thinking": True}}, True),
        ({"chat_template_kwargs": {"reasoning_effort": "high"}}, "high"),
    ],
)
def test_effort_and_template_arguments_say_whether_to_think(body: dict[str, Any], think: Any) -> None:
    assert read(**body).chat.think == think


def test_formats_are_read_in_their_spellings() -> None:
    schema = {"type": "object"}
    named = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    wanted = JsonSchema(msgspec.Raw(b'{"type":"object"}'))
    assert read(response_format=named).chat.response_format == wanted
    assert read(response_format={"type": "json_object", "schema": schema}).chat.response_format == wanted
    assert read(response_format={"type": "json_object"}).chat.response_format == JsonObject()
    assert read(response_format={"type": "text"}).chat.response_format is None


def test_probabilities_and_usage_are_asked_for() -> None:
    asked = read(logprobs=True, top_logprobs=3, stream_options={"include_usage": True})
    assert (asked.chat.logprobs, asked.chat.top_logprobs, asked.include_usage) == (True, 3, True)
    assert read(top_logprobs=3).chat.top_logprobs == 0


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"n": 2}, "n"),
        ({"n": 0}, "n"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0]"),
        ({"messages": [1]}, "messages[0]"),
    ],
)
def test_what_cannot_be_asked_is_refused(body: dict[str, Any], param: str | None) -> None:
    with pytest.raises(DialectError) as refused:
        read(**body)
    assert (refused.value.status, refused.value.param) == (400, param)


def test_images_and_sounds_keep_their_places() -> None:
    content = [
        {"type": "text", "text": "what?"},
        {"type": "image_url", "image_url": {"detail": "low", "url": "data:image/png;base64,YQ=="}},
        {"type": "input_audio", "input_audio": {"data": "Yg==", "format": "wav"}},
    ]
    assert read(messages=[{"role": "user", "content": content}]).chat.messages == (
        Message("user", parts=(TextPart("what?"), MediaPart("YQ=="), MediaPart("Yg=="))),
    )
    with pytest.raises(DialectError, match="image_url without data"):
        read(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}])
