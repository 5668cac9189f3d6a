"""Anthropic's requests as neutral ones."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamamgr.wire import anthropic
from llamamgr.wire.anthropic import MessagesRequest
from llamamgr.wire.errors import DialectError
from llamamgr.wire.neutral import JsonSchema, MediaPart, Message, TextPart, ToolCall
from llamamgr.wire.openai_tools import name_of
from tests.golden import replay

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = {"name": "get_weather", "description": "d", "input_schema": SCHEMA}
PNG = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
PDF = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "AA=="}}
BY_URL = {"type": "image", "source": {"type": "url", "url": "https://x.example/a.png"}}


def encoded(content: Any = "hi", **fields: Any) -> bytes:
    turns = [{"role": "user", "content": content}]
    return json.dumps({"model": "m", "max_tokens": 9, "messages": turns, **fields}).encode()


def parsed(content: Any = "hi", **fields: Any) -> MessagesRequest:
    return anthropic.parse_messages(encoded(content, **fields))


def refusal(data: bytes) -> str:
    with pytest.raises(DialectError) as refused:
        anthropic.parse_messages(data)
    assert refused.value.status == 400
    return refused.value.message


@pytest.mark.parametrize("name", ["messages-no-messages", "messages-empty", "messages-image-url"])
def test_recorded_refusals_are_given_word_for_word(name: str) -> None:
    (exchange,) = replay.load([name])
    assert refusal(exchange.body or b"") == json.loads(exchange.answer)["error"]["message"]


def test_text_blocks_and_strings_are_the_same_turn() -> None:
    assert parsed("hi").chat.messages == parsed([{"type": "text", "text": "hi"}]).chat.messages
    assert parsed("hi").chat.messages == (Message("user", "hi"),)


@pytest.mark.parametrize(
    ("system", "said"),
    [
        ("be brief", "be brief"),
        (
            [
                {"type": "text", "text": "a"},
                {"type": "text", "text": "b", "cache_control": {"type": "ephemeral"}},
            ],
            "a\n\nb",
        ),
        (
            "x-anthropic-billing-header: cc_version=2.1.101.e51; cc_entrypoint=cli; cch=a5145;You are",
            "You are",
        ),
        (
            [
                {"type": "text", "text": "x-anthropic-billing-header: cc_version=2; cch=b1;"},
                {"type": "text", "text": "You"},
            ],
            "You",
        ),
        ("Say x-anthropic-billing-header: cch=a5145;", "Say x-anthropic-billing-header: cch=a5145;"),
    ],
)
def test_system_text_is_one_turn_without_the_stamp_that_changes_each_time(system: Any, said: str) -> None:
    assert parsed(system=system).chat.messages[0] == Message("system", said)


def test_media_keep_their_place_among_texts() -> None:
    (turn,) = parsed([{"type": "text", "text": "a"}, PNG, {"type": "text", "text": "b"}]).chat.messages
    assert isinstance(turn, Message)
    assert turn.parts == (TextPart("a"), MediaPart("AAAA"), TextPart("b"))


def test_a_whole_exchange_with_a_tool_becomes_turns_in_order() -> None:
    turns = [
        {"role": "user", "content": "weather?"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Paris"}},
                {"type": "tool_use", "id": "toolu_2", "name": "get_weather", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": "rain"},
                {
                    "type": "tool_result",
                    "tool_use_id": "toolu_2",
                    "content": [{"type": "text", "text": "sun"}, PNG],
                },
                {"type": "tool_result", "tool_use_id": "toolu_2", "is_error": True, "content": "no"},
                {"type": "text", "text": "and now?"},
            ],
        },
    ]
    said = parsed(messages=turns, tools=[WEATHER]).chat.messages
    calls = (
        ToolCall("1", "get_weather", '{"city": "Paris"}', 0),
        ToolCall("2", "get_weather", "{}", 1),
    )
    assert said == (
        Message("user", "weather?"),
        Message("assistant", "I look.", thinking="hm", tool_calls=calls),
        Message("tool", "rain", tool_call_id="1", tool_name="get_weather"),
        Message(
            "tool",
            tool_call_id="2",
            tool_name="get_weather",
            parts=(TextPart("sun"), MediaPart("AAAA")),
        ),
        Message("tool", "Error:\nno", tool_call_id="2", tool_name="get_weather"),
        Message("user", "and now?"),
    )


def test_turns_of_one_role_that_follow_each_other_are_one() -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "user", "content": [{"type": "text", "text": "b"}]}]
    assert parsed(messages=turns).chat.messages == (Message("user", "a\nb"),)


def test_documents_are_read_as_text() -> None:
    document = {
        "type": "document",
        "title": "T",
        "source": {"type": "text", "media_type": "text/plain", "data": "x"},
    }
    assert parsed([document]).chat.messages == (Message("user", "T\nx"),)
    assert parsed([{**document, "context": "C"}]).chat.messages == (Message("user", "T\nC\nx"),)
    found = {"type": "search_result", "source": "http://x", "title": "T", "content": [{"text": "x"}]}
    assert parsed([found]).chat.messages == (Message("user", "http://x\nT\nx"),)
    summary = {"type": "compaction", "content": "long ago"}
    assert parsed([summary]).chat.messages == (Message("user", "long ago"),)
    told = "Could not process PDF: documents are read as text only, not as base64"  # Claude Code knows its beginning
    assert refusal(encoded([PDF])) == told


def test_what_a_tool_gave_back_is_passed_over_where_nobody_here_can_read_it() -> None:
    found = {"type": "tool_reference", "tool_name": "x"}
    result = {
        "type": "tool_result",
        "tool_use_id": "1",
        "content": [found, {"type": "text", "text": "a"}, PDF],
    }
    (turn,) = parsed([result]).chat.messages
    assert turn == Message("tool", "a\n[a PDF, which this model cannot read]", tool_call_id="1")
    assert "tool_reference" in refusal(encoded([found]))


@pytest.mark.parametrize(
    ("choice", "names", "word"),
    [
        (None, ["get_weather", "b"], ""),
        ({"type": "auto"}, ["get_weather", "b"], "auto"),
        ({"type": "any"}, ["get_weather", "b"], "required"),
        ({"type": "tool", "name": "b"}, ["b"], "required"),
        ({"type": "none"}, [], ""),
    ],
)
def test_tools_and_the_choice_among_them(choice: Any, names: list[str], word: str) -> None:
    tools = [WEATHER, {"name": "b", "input_schema": {"type": "object"}}]
    chat = parsed(tools=tools, tool_choice=choice).chat
    assert ([name_of(tool) for tool in chat.tools], chat.tool_choice) == (names, word)


def test_a_tools_schema_passes_untouched() -> None:
    (tool,) = parsed(tools=[WEATHER]).chat.tools
    assert json.loads(bytes(tool))["function"] == {
        "name": "get_weather",
        "description": "d",
        "parameters": SCHEMA,
    }


def test_tools_that_only_anthropic_runs_are_left_out_and_named() -> None:
    asked = parsed(tools=[{"type": "web_search_20250305", "name": "web_search"}, WEATHER])
    assert (len(asked.chat.tools), asked.left_out) == (1, ("web_search",))


SEARCH = {"type": "web_search_20250305", "name": "web_search"}
BASH = {"type": "bash_20250124", "name": "bash"}
ON_SERVERS = "is run by Anthropic's servers only; there are none here: offer a tool that the client runs"


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"tools": [SEARCH]}, f"web_search {ON_SERVERS}"),
        ({"tools": [{"type": "mcp_toolset"}, SEARCH]}, f"mcp_toolset {ON_SERVERS}"),
        ({"tools": [SEARCH], "tool_choice": {"type": "any"}}, f"web_search {ON_SERVERS}"),
        (
            {"tools": [SEARCH, WEATHER], "tool_choice": {"type": "tool", "name": "web_search"}},
            f"web_search {ON_SERVERS}",
        ),
        (
            {"tools": [BASH, WEATHER], "tool_choice": {"type": "tool", "name": "bash"}},
            "tool_choice: no model here knows bash without an input_schema of its own",
        ),
    ],
)
def test_what_only_a_tool_that_is_not_here_could_answer_is_refused(fields: dict[str, Any], told: str) -> None:
    assert refusal(encoded(**fields)) == told


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [BASH]},
        {"tools": [BASH, SEARCH]},
        {"tools": [{"name": "x"}]},
        {"tools": []},
        {"tools": [SEARCH], "tool_choice": {"type": "none"}},
    ],
)
def test_what_a_client_runs_or_nobody_may_call_is_only_left_out(fields: dict[str, Any]) -> None:
    asked = parsed(**fields)
    assert (len(asked.left_out), asked.chat.tools) == (len(fields["tools"]), ())


def test_a_count_needs_no_tool_that_is_here() -> None:
    assert anthropic.parse_count(encoded(tools=[SEARCH])).left_out == ("web_search",)


@pytest.mark.parametrize(
    ("thinking", "think", "budget"),
    [
        (None, False, None),
        ({"type": "disabled"}, False, None),
        ({"type": "enabled", "budget_tokens": 2048}, True, 2048),
        ({"type": "adaptive"}, None, None),
        ({"type": "between_tools"}, False, None),
    ],
)
def test_a_model_thinks_only_when_it_is_told_to(
    thinking: Any, think: bool | None, budget: int | None
) -> None:
    chat = parsed(thinking=thinking).chat
    assert (chat.think, chat.sampling.get("thinking_budget_tokens")) == (think, budget)


def test_sampling_and_the_engines_own_fields_pass() -> None:
    sent = parsed(
        temperature=0.5, top_p=0.9, top_k=3, min_p=0.1, stop_sequences=["x"], metadata={"user_id": "u"}
    )
    assert {name: value for name, value in sent.chat.sampling.items() if name != "min_p"} == {
        "max_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 3,
        "stop": ("x",),
        "verbose": True,
    }
    assert bytes(sent.chat.sampling["min_p"]) == b"0.1"  # type: ignore[call-overload]
    assert parsed(stream=True).chat.sampling["return_progress"] is True
    assert parsed(output_config={"effort": "xhigh"}).chat.sampling["reasoning_effort"] == "max"
    assert (
        parsed(
            tool_choice={"type": "auto", "disable_parallel_tool_use": True}, tools=[WEATHER]
        ).chat.sampling["parallel_tool_calls"]
        is False
    )


@pytest.mark.parametrize("field", ["output_format", "output_config"])
def test_an_answer_can_be_bound_to_a_schema(field: str) -> None:
    given_format = {"type": "json_schema", "schema": SCHEMA}
    asked = parsed(**{field: {"format": given_format} if field == "output_config" else given_format})
    assert isinstance(asked.chat.response_format, JsonSchema)
    assert json.loads(bytes(asked.chat.response_format.schema)) == SCHEMA


def test_caching_is_told_apart_only_where_it_was_asked_for() -> None:
    cached = {"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}
    assert parsed([cached]).tells_cache
    assert not parsed('say "cache_control" twice').tells_cache


def test_the_start_of_an_answer_is_known() -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "Well,"}]
    assert parsed(messages=turns).prefill == "Well,"
    assert parsed().prefill == ""


def test_addresses_are_told_where_fetching_is_allowed_and_then_stand_for_what_was_fetched() -> None:
    data = encoded([BY_URL])
    asked = anthropic.parse_messages(data, fetching=True)
    assert asked.addresses == ("https://x.example/a.png",)
    again = anthropic.parse_messages(data, fetched={asked.addresses[0]: "data:image/png;base64,AAAA"})
    (turn,) = again.chat.messages
    assert isinstance(turn, Message)
    assert (turn.parts, again.addresses) == ((MediaPart("AAAA"),), ())


@pytest.mark.parametrize(
    "fields",
    [
        {"model": ""},
        {"max_tokens": -1},
        {"max_tokens": None},
        {"messages": []},
        {"messages": [{"role": "robot", "content": "x"}]},
        {"messages": [{"role": "user"}]},
        {"content": [{"type": "hologram"}]},
        {"content": [{"type": "tool_result", "content": "x"}]},
        {"content": [{"type": "image", "source": {"type": "base64", "data": "***"}}]},
        {"messages": [{"role": "assistant", "content": [{"type": "tool_use", "id": "1"}]}]},
        {
            "messages": [
                {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "a", "input": 5}]}
            ]
        },
        {"tool_choice": {"type": "sometimes"}},
        {"tool_choice": {"type": "tool", "name": "x"}, "tools": [WEATHER]},
        {"tool_choice": {"type": "any"}},
        {"thinking": {"type": "hard"}},
        {"thinking": {"type": "enabled", "budget_tokens": 0}},
        {"output_config": {"format": {"type": "xml"}}},
        {"output_config": {"effort": "banana"}},
    ],
)
def test_what_cannot_be_asked_is_refused(fields: dict[str, Any]) -> None:
    assert refusal(encoded(fields.pop("content", "hi"), **fields))


def test_counting_needs_no_limit() -> None:
    data = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]}).encode()
    assert anthropic.parse_count(data).chat.messages == (Message("user", "hi"),)


@given(st.binary(max_size=30), st.floats(0, 1))
def test_mutated_requests_are_read_or_refused(data: bytes, at: float) -> None:
    good = encoded(
        [{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "x"}, PNG]}, PNG],
        tools=[WEATHER],
        tool_choice={"type": "tool", "name": "get_weather"},
        system=[{"type": "text", "text": "x"}],
        thinking={"type": "enabled", "budget_tokens": 5},
        stop_sequences=["a"],
    )
    place = round(at * len(good))
    try:
        asked = anthropic.parse_messages(good[:place] + data + good[place + len(data) :])
    except DialectError as refused:
        assert refused.status == 400
    else:
        msgspec.json.encode(asked.chat.sampling)
