"""The engine's streams as events of ``/v1/responses`` and as whole responses."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from typing import Any

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent

from llamamgr.wire import responses_request
from llamamgr.wire.engine import ChatStream
from llamamgr.wire.neutral import (
    Alternative,
    Event,
    Failed,
    Finished,
    Logprob,
    Message,
    PromptRead,
    TextDelta,
    ThinkingDelta,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from llamamgr.wire.responses_answer import Renderer
from tests.wire.streams import CHATS, CUTS, SPOILS, THOUGHTFUL, body, pieces, spoiled, sse_events

SPOKEN: list[list[Event]] = [
    [TextDelta("a"), TextDelta("b"), Finished("stop", Usage(3, 1, 2))],
    [ThinkingDelta("why"), ThinkingDelta("?"), TextDelta("so"), Finished("length")],
    [
        TextDelta("t"),
        ToolCallDelta(0, "i", "f", "{"),
        ToolCallDelta(0, arguments="}"),
        Finished("tool_calls"),
    ],
    [ToolCallDelta(0, "i", "f", "{}"), ToolCallDelta(1, "j", "g", ""), Finished("tool_calls")],
    [Finished("stop")],
]
ROW = Logprob("a", -0.5, (97,), (Alternative("b", -1.5, (98,)),))
SPOKEN.append([TextDelta("a", (ROW,)), TextDelta("b"), Finished("stop")])
ASKED: list[dict[str, Any]] = [
    {},
    {"tools": [{"type": "custom", "name": "f"}]},
    {"reasoning": {"effort": "low", "summary": "auto"}, "include": ["reasoning.encrypted_content"]},
]


def renderer(stream: bool, **fields: Any) -> Renderer:
    asked = responses_request.parse(
        json.dumps({"model": "m", "input": "hi", "stream": stream, **fields}).encode()
    )
    numbers = itertools.count()
    return Renderer(asked, "resp_1", new_id=lambda: str(next(numbers)), now=lambda: 5)


def events_of(data: bytes, cuts: list[float] | None = None) -> list[Event]:
    stream = ChatStream()
    return [event for part in pieces(data, cuts or []) for event in stream.feed(part)] + stream.eof()


def streamed(events: Iterable[Event], **fields: Any) -> list[Any]:
    one = renderer(True, **fields)
    told = [(name, json.loads(data)) for name, data in sse_events(b"".join(map(one.event, events)))]
    assert all(name == data["type"] for name, data in told)
    assert [data["sequence_number"] for _, data in told] == list(range(len(told)))
    return [data for _, data in told]


def whole(events: Iterable[Event], **fields: Any) -> dict[str, Any]:
    one = renderer(False, **fields)
    assert not b"".join(map(one.event, events))
    return dict(json.loads(one.whole()))


def gathered(told: list[Any]) -> dict[str, Any]:
    """The response that a client puts together of events, which must come in their full order."""
    assert [data["type"] for data in told[:2]] == ["response.created", "response.in_progress"]
    assert told[0]["response"]["status"] == "in_progress"
    items: list[dict[str, Any]] = []
    opened: dict[str, str] = {}
    text = ""
    for data in told[2:-1]:
        kind = data["type"]
        if kind == "response.output_item.added":
            assert data["output_index"] == len(items)
            items.append(data["item"])
            text = ""
        elif kind.endswith(".delta"):
            assert ("part" in opened) is ("call_id" not in items[-1])
            assert (data["item_id"], data["output_index"]) == (items[-1]["id"], len(items) - 1)
            text += data["delta"]
        elif kind.endswith("_part.added"):
            assert (data["part"]["text"], text, "part" in opened) == ("", "", False)
            opened["part"] = data["part"]["type"]
        elif kind.endswith("_part.done"):
            assert (data["part"]["type"], data["part"]["text"]) == (opened.pop("part"), text)
        elif kind == "response.output_item.done":
            assert not opened
            items[-1] = data["item"]
        elif kind.endswith(".done"):
            assert next(data[name] for name in ("text", "arguments", "input") if name in data) == text
    last = told[-1]["response"]
    assert told[-1]["type"] == f"response.{last['status']}"
    assert [item | {"status": ""} for item in last["output"]] == [item | {"status": ""} for item in items]
    return dict(last)


@pytest.mark.parametrize("fields", ASKED)
@pytest.mark.parametrize("events", SPOKEN)
def test_streamed_is_whole(events: list[Event], fields: dict[str, Any]) -> None:
    assert gathered(streamed(events, **fields)) == whole(events, **fields)


@pytest.mark.parametrize("name", [*CHATS, *THOUGHTFUL])
@given(cuts=CUTS)
def test_a_real_stream_is_whole_at_any_cut(name: str, cuts: list[float]) -> None:
    assert gathered(streamed(events_of(body(name), cuts))) == whole(events_of(body(name)))


@pytest.mark.parametrize(
    "fields",
    [
        *ASKED,
        {
            "tools": [{"type": "function", "name": "f"}, {"type": "web_search"}],
            "tool_choice": {
                "type": "allowed_tools",
                "mode": "auto",
                "tools": [{"type": "function", "name": "f"}],
            },
            "text": {"verbosity": "low"},
            "metadata": {"a": "b"},
            "instructions": "i",
            "user": "u",
        },
    ],
)
@pytest.mark.parametrize("events", [*SPOKEN, [TextDelta("a"), Failed(500, "gone")]])
def test_events_and_responses_are_what_the_official_client_says_they_are(
    events: list[Event], fields: dict[str, Any]
) -> None:
    kind: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(ResponseStreamEvent)
    for data in streamed(events, **fields):
        told = kind.validate_python(data)
        assert told.type == data["type"]
    if not isinstance(events[-1], Failed):
        assert Response.model_validate(whole(events, **fields)).status in ("completed", "incomplete")


def test_text_stays_beside_calls() -> None:
    told = whole([TextDelta("I look."), ToolCallDelta(0, "i", "f", "{}"), Finished("tool_calls")])
    text, call = told["output"]
    assert text["content"][0]["text"] == "I look."
    assert (call["type"], call["name"], call["arguments"], call["call_id"]) == (
        "function_call",
        "f",
        "{}",
        "call_i",
    )
    assert told["status"] == "completed"


def test_an_answer_cut_by_its_limit_is_incomplete() -> None:
    told = whole([TextDelta("a"), Finished("length")], max_output_tokens=1)
    assert (told["status"], told["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert (told["output"][0]["status"], told["max_output_tokens"]) == ("incomplete", 1)
    assert streamed([TextDelta("a"), Finished("length")])[-1]["type"] == "response.incomplete"


def test_reasoning_is_an_item_of_its_own_and_counted() -> None:
    told = whole(events_of(body("chat-thinking")))
    reasoning, message = told["output"]
    assert reasoning["content"] == [{"type": "reasoning_text", "text": "They want to know how we are."}]
    assert (reasoning["summary"], "encrypted_content" in reasoning) == ([], False)
    assert message["content"][0]["text"] == "Every llama here is fed, brushed and ready."
    assert told["usage"]["output_tokens_details"]["reasoning_tokens"] == 7
    assert told["usage"]["output_tokens"] == 20


def test_a_summary_is_what_clients_that_ask_for_one_get_and_a_seal_goes_round() -> None:
    events = events_of(body("chat-thinking"))
    reasoning = whole(events, **ASKED[2])["output"][0]
    assert reasoning["content"] == []
    assert reasoning["summary"][0]["text"] == "They want to know how we are."
    again = responses_request.parse(
        json.dumps(
            {"model": "m", "input": [{**reasoning, "summary": []}, {"role": "user", "content": "x"}]}
        ).encode()
    )
    assert again.turns[0].thinking == "They want to know how we are."


def test_what_was_asked_for_is_told_again() -> None:
    told = whole(
        SPOKEN[0], metadata={"a": "b"}, temperature=0.5, instructions="i", store=False, tool_choice="none"
    )
    assert (told["metadata"], told["temperature"], told["instructions"]) == ({"a": "b"}, 0.5, "i")
    assert (told["store"], told["tool_choice"], told["usage"]["total_tokens"]) == (False, "none", 5)


def test_the_answer_is_a_turn_to_go_on_from() -> None:
    one = renderer(True)
    for event in SPOKEN[1]:
        one.event(event)
    assert one.message == Message("assistant", "so", thinking="why?")


def test_while_a_prompt_is_read_a_client_hears_of_it_every_few_seconds() -> None:
    asked, clock = responses_request.parse(b'{"model":"m","input":"hi","stream":true}'), [10]
    assert asked.sampling["return_progress"] is True
    one = Renderer(asked, "resp_1", new_id=lambda: "1", now=lambda: clock[0])
    told = []
    for now in (10, 11, 14, 15, 16, 20):
        clock[0] = now
        told.append(one.event(PromptRead(900, 0, now)).count(b"event: response.in_progress\n"))
    assert told == [1, 0, 0, 1, 0, 1]


def test_an_answer_was_completed_when_it_ended_however_often_it_is_told() -> None:
    asked, clock = responses_request.parse(b'{"model":"m","input":"hi"}'), itertools.count(10)
    one = Renderer(asked, "resp_1", new_id=lambda: "1", now=lambda: next(clock))
    for event in SPOKEN[0]:
        one.event(event)
    told = [json.loads(one.whole()) for _ in range(2)]
    assert [(one["created_at"], one["completed_at"]) for one in told] == [(10, 11), (10, 11)]


def test_a_failure_is_the_last_event() -> None:
    told = streamed([TextDelta("a"), Failed(500, "gone")])
    assert told[-1]["type"] == "response.failed"
    assert told[-1]["response"]["status"] == "failed"
    assert told[-1]["response"]["error"] == {"code": "server_error", "message": "gone"}


def test_what_was_under_way_at_a_failure_is_incomplete() -> None:
    told = streamed([ThinkingDelta("a"), TextDelta("b"), Failed(500, "gone")])[-1]["response"]
    assert [item["status"] for item in told["output"]] == ["completed", "incomplete"]


def test_a_call_without_arguments_has_an_empty_object_of_them() -> None:
    events = [ToolCallDelta(0, "i", "f", ""), Finished("tool_calls")]
    assert whole(events)["output"][0]["arguments"] == "{}"
    told = streamed(events)
    assert [data["delta"] for data in told if data["type"].endswith("arguments.delta")] == ["{}"]
    [done] = [data for data in told if data["type"].endswith("arguments.done")]
    assert (done["arguments"], done["name"]) == ("{}", "f")
    assert whole([*events[:1], Finished("length")])["output"][0]["arguments"] == ""


def test_a_call_of_a_custom_tool_tells_the_text_it_is_given() -> None:
    pieces = [ToolCallDelta(0, "i", "f", '{"input":"a'), ToolCallDelta(0, arguments='\\nb"}')]
    told = streamed([*pieces, Finished("tool_calls")], **ASKED[1])
    assert [data["type"] for data in told[2:-1]] == [
        "response.output_item.added",
        "response.custom_tool_call_input.delta",
        "response.custom_tool_call_input.done",
        "response.output_item.done",
    ]
    assert (told[3]["delta"], told[4]["input"], told[2]["item"]["input"]) == ("a\nb", "a\nb", "")
    [call] = told[-1]["response"]["output"]
    assert (call["type"], call["name"], call["call_id"], call["input"]) == (
        "custom_tool_call",
        "f",
        "call_i",
        "a\nb",
    )
    cut = whole([pieces[0], Finished("length")], **ASKED[1])["output"][0]
    assert (cut["input"], cut["status"]) == ('{"input":"a', "incomplete")


def test_a_call_of_a_namespace_tells_both_names() -> None:
    space = {"type": "namespace", "name": "mcp", "tools": [{"type": "function", "name": "f"}]}
    told = streamed([ToolCallDelta(0, "i", "mcp__f", "{}"), Finished("tool_calls")], tools=[space])
    [call] = told[-1]["response"]["output"]
    assert (call["type"], call["name"], call["namespace"]) == ("function_call", "f", "mcp")
    [done] = [data for data in told if data["type"].endswith("arguments.done")]
    assert done["name"] == "f"
    [bare] = whole([ToolCallDelta(0, "i", "g", "{}"), Finished("tool_calls")], tools=[space])["output"]
    assert bare["name"] == "g" and "namespace" not in bare


def test_a_call_that_was_cut_off_can_be_gone_on_from() -> None:
    one = renderer(False)
    for event in (ToolCallDelta(0, "i", "f", '{"a'), Finished("length")):
        one.event(event)
    assert one.message.tool_calls == (ToolCall("call_i", "f", "{}"),)


def test_probabilities_stand_with_their_pieces_and_with_the_whole_text() -> None:
    row = {
        "token": "a",
        "bytes": [97],
        "logprob": -0.5,
        "top_logprobs": [{"token": "b", "bytes": [98], "logprob": -1.5}],
    }
    told = streamed(SPOKEN[-1])
    deltas = [data for data in told if data["type"] == "response.output_text.delta"]
    assert [(data["delta"], data["logprobs"]) for data in deltas] == [("a", [row]), ("b", [])]
    assert told[-1]["response"]["output"][0]["content"][0]["logprobs"] == [row]
    [done] = [data for data in told if data["type"] == "response.output_text.done"]
    assert done["logprobs"] == [row]


def test_a_call_that_is_gone_back_to_is_a_failure() -> None:
    events = [
        ToolCallDelta(0, "a", "f", "{"),
        ToolCallDelta(1, "b", "g", "{}"),
        ToolCallDelta(0, arguments="}"),
    ]
    assert streamed(events)[-1]["type"] == "response.failed"


@given(name=st.sampled_from((*CHATS, *THOUGHTFUL)), spoils=SPOILS, cuts=CUTS)
def test_spoiled_streams_fail_or_are_whole(
    name: str, spoils: list[tuple[float, bytes, int]], cuts: list[float]
) -> None:
    told = streamed(events_of(spoiled(body(name), spoils), cuts))
    if told[-1]["type"] == "response.failed":
        assert told[-1]["response"]["error"]["message"]
    else:
        gathered(told)
