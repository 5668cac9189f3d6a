"""The engine's streams as events of ``/v1/responses`` and as whole responses."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamamgr.wire import responses_request
from llamamgr.wire.engine import ChatStream
from llamamgr.wire.neutral import (
    Event,
    Failed,
    Finished,
    Message,
    TextDelta,
    ThinkingDelta,
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
ASKED: list[dict[str, Any]] = [
    {},
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
    text = ""
    for data in told[2:-1]:
        kind = data["type"]
        if kind == "response.output_item.added":
            assert data["output_index"] == len(items)
            items.append(data["item"])
            text = ""
        elif kind.endswith(".delta"):
            assert (data["item_id"], data["output_index"]) == (items[-1]["id"], len(items) - 1)
            text += data["delta"]
        elif kind in ("response.content_part.done", "response.reasoning_summary_part.done"):
            assert data["part"]["text"] == text
        elif kind == "response.output_item.done":
            items[-1] = data["item"]
        elif kind.endswith(".done"):
            assert data.get("text", data.get("arguments")) == text
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
    reasoning = whole(events, **ASKED[1])["output"][0]
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


def test_a_failure_is_the_last_event() -> None:
    told = streamed([TextDelta("a"), Failed(500, "gone")])
    assert told[-1]["type"] == "response.failed"
    assert told[-1]["response"]["status"] == "failed"
    assert told[-1]["response"]["error"] == {"code": "server_error", "message": "gone"}


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
    if told[-1]["type"] != "response.failed":
        gathered(told)
