"""Chat requests of OpenAI: what is read, what is refused, and what is put right on the way."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamamgr.wire import openai, openai_chat
from llamamgr.wire.errors import DialectError
from tests.golden import replay

A_TOOL = {"type": "function", "function": {"name": "a", "parameters": {"type": "object"}}}
B_TOOL = {"type": "function", "function": {"name": "b", "parameters": {"type": "object"}}}
SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}}


def refusal(data: bytes, **more: Any) -> tuple[int, str]:
    with pytest.raises(DialectError) as refused:
        openai_chat.prepare(data, **more)
    return refused.value.status, refused.value.message


def chat(content: object = "hi", **fields: object) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": content}], **fields}).encode()


def sent(**fields: object) -> dict[str, Any]:
    """The fields that the engine gets, without those that every test has."""
    body = json.loads(openai_chat.prepare(chat(**fields)).body)
    return {name: value for name, value in body.items() if name not in ("model", "messages")}


@pytest.mark.parametrize(
    "name", ["v1-chat-no-model", "v1-chat-no-messages", "v1-chat-image-url", "v1-chat-effort-bad"]
)
def test_recorded_refusals_are_given_word_for_word(name: str) -> None:
    (exchange,) = replay.load([name])
    status, message = refusal(exchange.body or b"")
    assert (status, openai.error_body(status, message).decode()) == (
        exchange.status,
        exchange.answer.rstrip(),
    )


@pytest.mark.parametrize(
    "name",
    ["v1-chat", "v1-chat-stream", "v1-chat-parts", "v1-chat-schema", "v1-chat-json", "v1-chat-logprobs"],
)
def test_recorded_requests_pass_byte_for_byte(name: str) -> None:
    (exchange,) = replay.load([name])
    passing = openai_chat.prepare(exchange.body or b"")
    assert (passing.model, passing.stream) == ("tinychat", exchange.json.get("stream", False))
    assert passing.body == exchange.body


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "EOF"),
        (b" \r\n", "EOF"),
        (b'{"model":', "We could not parse the JSON body of your request: unexpected EOF"),
        (b"[]", "Invalid type for the body: expected an object, but got an array instead."),
        (b'{"model":"m"}', "[] is too short - 'messages'"),
        (
            chat(content=5),
            "Invalid type for 'messages[0].content': expected one of a string or an array, but got an integer instead.",
        ),
    ],
)
def test_what_cannot_be_a_chat_is_refused(data: bytes, message: str) -> None:
    assert refusal(data) == (400, message)


FETCHED = [
    {"image_url": {"url": "https://x.example/a.png"}},
    {"image_url": {"url": " HTTP://x.example/a.png"}},
    {"image_url": "http://x.example/a.png"},
    {"video_url": {"url": "http://x.example/a.mp4"}},
    {"input_video": {"data": "http://x.example/a.mp4"}},
]


@pytest.mark.parametrize(
    "part",
    [
        *FETCHED,
        {"image_url": {"url": "file:///etc/passwd"}},
        {"input_audio": {"data": "ftp://x.example/a.wav"}},
    ],
)
def test_media_that_the_engine_would_fetch_are_refused(part: dict[str, Any]) -> None:
    # an escape must not hide the address
    data = chat([{"type": "text", "text": "hi"}, {"type": next(iter(part)), **part}])
    assert refusal(data.replace(b"http", rb"\u0068ttp"))[1].startswith(
        "image URLs are not currently supported"
    )


@pytest.mark.parametrize("part", FETCHED)
def test_where_fetching_is_allowed_addresses_are_told_and_can_be_enclosed(part: dict[str, Any]) -> None:
    passing = openai_chat.prepare(chat([{"type": "x", **part}]), fetching=True)
    (address,) = passing.addresses
    body = openai_chat.enclosed(passing.body, {address: "data:image/png;base64,AAAA"})
    assert b"x.example" not in body
    assert openai_chat.prepare(body).addresses == ()


def test_files_are_refused_even_where_fetching_is_allowed() -> None:
    data = chat([{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}])
    assert refusal(data, fetching=True)[0] == 400


@pytest.mark.parametrize(
    ("content", "media"),
    [
        ("see https://x.example/a.png", False),
        ([{"type": "text", "text": "https://x.example"}], False),
        ([{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}], True),
        ([{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}], True),
    ],
)
def test_text_and_enclosed_media_pass(content: object, media: bool) -> None:
    data = chat(content, stream=True)
    assert openai_chat.prepare(data) == openai_chat.Passing("m", True, data, media)


@pytest.mark.parametrize(
    "fields",
    [
        {"top_k": 3, "min_p": 0.1, "grammar": "root ::= x", "cache_prompt": False, "unknown": {"a": [1]}},
        {"max_completion_tokens": 5, "n": 2, "logit_bias": {"5": -100}, "seed": 1, "stop": "x"},
        {"tools": [A_TOOL], "tool_choice": "auto", "parallel_tool_calls": False},
        {
            "response_format": {"type": "json_object", "schema": SCHEMA},
            "stream_options": {"include_usage": True},
        },
        {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}},
        {"response_format": {"type": "text"}, "reasoning_effort": "high"},
    ],
)
def test_what_the_engine_understands_passes_byte_for_byte(fields: dict[str, object]) -> None:
    assert openai_chat.prepare(chat(**fields)).body == chat(**fields)


def test_a_chosen_function_is_the_only_one_that_is_offered_and_must_be_called() -> None:
    chosen = sent(
        tools=[A_TOOL, B_TOOL], tool_choice={"type": "function", "function": {"name": "b"}}, top_k=1
    )
    assert chosen == {"tools": [B_TOOL], "tool_choice": "required", "top_k": 1}


def test_with_none_no_tool_is_offered() -> None:
    assert sent(tools=[A_TOOL], tool_choice="none") == {}


@pytest.mark.parametrize(
    "spelling",
    [
        {"type": "json_schema", "schema": SCHEMA},
        {"type": "json_schema", "json_schema": SCHEMA},
        {"type": "json_schema", "json_schema": {"name": "answer"}, "schema": SCHEMA},
    ],
)
def test_a_schema_in_any_spelling_is_one_that_the_engine_obeys(spelling: dict[str, Any]) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
    assert sent(response_format=spelling) == {"response_format": wanted}


@pytest.mark.parametrize(
    "given", [{"type": "json_schema"}, {"type": "json_schema", "json_schema": {"name": "x"}}]
)
def test_a_schema_that_is_missing_is_refused_rather_than_forgotten(given: dict[str, Any]) -> None:
    assert refusal(chat(response_format=given))[0] == 400


@pytest.mark.parametrize(("asked", "known"), [("minimal", "low"), ("xhigh", "max"), ("none", "none")])
def test_efforts_are_those_that_templates_know(asked: str, known: str) -> None:
    assert sent(reasoning_effort=asked) == {"reasoning_effort": known}
    assert sent(reasoning={"effort": asked})["reasoning_effort"] == known


def test_reasoning_of_earlier_turns_goes_by_the_engines_name() -> None:
    turns = [{"role": "assistant", "content": "x", "reasoning": "why"}, {"role": "user", "content": "y"}]
    body = json.loads(openai_chat.prepare(chat(messages=turns)).body)
    assert body["messages"] == [{"role": "assistant", "content": "x", "reasoning_content": "why"}, turns[1]]


def test_arguments_of_earlier_calls_must_be_json() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "a", "arguments": "{bad"}}
    data = chat(messages=[{"role": "assistant", "content": None, "tool_calls": [call]}])
    assert refusal(data) == (400, "the arguments of a tool call in messages[0] are no JSON")


@pytest.mark.parametrize("arguments", [{"arguments": ""}, {"arguments": " "}, {"arguments": None}, {}])
def test_an_earlier_call_without_arguments_has_an_empty_object(arguments: dict[str, Any]) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "a", **arguments}}
    data = chat(messages=[{"role": "assistant", "content": None, "tool_calls": [call]}])
    (turn,) = json.loads(openai_chat.prepare(data).body)["messages"]
    assert turn["tool_calls"] == [{**call, "function": {"name": "a", "arguments": "{}"}}]


def test_a_tools_null_is_left_out_and_a_schemas_is_not() -> None:
    described = {"type": "function", "function": {**A_TOOL["function"], "description": None}}
    assert sent(tools=[described, B_TOOL])["tools"] == [A_TOOL, B_TOOL]
    assert sent(functions=[described["function"]])["tools"] == [A_TOOL]
    nullable = {"type": "function", "function": {"name": "a", "parameters": {"type": ["string", "null"]}}}
    data = chat(tools=[nullable])
    assert openai_chat.prepare(data).body is data


def test_the_engine_gets_bytes_that_it_can_read() -> None:
    data = b'{"model":"m","messages":[{"role":"user","content":"\\ud800"}],"user":"\xff"} trailing'
    body = json.loads(openai_chat.prepare(data).body)
    assert body["messages"][0]["content"] == "\ufffd"


@given(st.binary(max_size=40), st.floats(0, 1))
def test_mutated_requests_are_read_or_refused(data: bytes, at: float) -> None:
    good = chat(
        [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}],
        tools=[A_TOOL],
        tool_choice={"type": "function", "function": {"name": "a"}},
        response_format={"type": "json_schema", "schema": SCHEMA},
        reasoning={"effort": "low"},
    )
    place = round(at * len(good))
    try:
        passing = openai_chat.prepare(good[:place] + data + good[place + len(data) :])
    except DialectError as refused:
        assert refused.status == 400
    else:
        assert passing.model
        json.loads(passing.body)


def test_a_turn_says_something_or_is_refused_as_ollama_does() -> None:
    for turn in ({"role": "user", "content": None}, {"role": "user"}, {"role": "assistant", "content": None}):
        data = msgspec.json.encode({"model": "m", "messages": [turn]})
        assert refusal(data) == (400, "invalid message content type: <nil>")
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    for more in ({"tool_calls": [call]}, {"reasoning_content": "hm"}, {"refusal": "no"}):
        turn = {"role": "assistant", "content": None, **more}
        assert openai_chat.prepare(msgspec.json.encode({"model": "m", "messages": [turn]}))


@pytest.mark.parametrize(
    ("fields", "effort"),
    [
        ({}, ""),
        ({"reasoning_effort": "none"}, ""),
        ({"reasoning_effort": "low"}, "reasoning_effort"),
        ({"reasoning": {"effort": "xhigh"}}, "reasoning.effort"),
        ({"reasoning": {"effort": "none"}}, ""),
    ],
)
def test_an_effort_asks_for_thoughts(fields: dict[str, object], effort: str) -> None:
    assert openai_chat.prepare(chat("hi", **fields)).effort == effort


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"reasoning_effort": "x"}, "reasoning_effort"), ({"reasoning": {"effort": "x"}}, "reasoning.effort")],
)
def test_an_effort_that_is_none_is_refused_by_the_name_of_its_field(
    fields: dict[str, object], param: str
) -> None:
    with pytest.raises(DialectError) as refused:
        openai_chat.prepare(chat("hi", **fields))
    assert (refused.value.status, refused.value.param) == (400, param)


def test_more_rivals_than_there_may_be_are_refused() -> None:
    assert refusal(chat("hi", logprobs=True, top_logprobs=21)) == (
        400,
        "top_logprobs must be between 0 and 20",
    )
    assert openai_chat.prepare(chat("hi", logprobs=True, top_logprobs=20))


def test_an_image_may_be_a_bare_text_as_in_ollama() -> None:
    body = chat([{"type": "image_url", "image_url": "data:image/png;base64,AAAA"}])
    [turn] = msgspec.json.decode(openai_chat.prepare(body).body)["messages"]
    assert turn["content"] == [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]
