"""The engine's streams as Anthropic's events and messages."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
from anthropic.types import ModelInfo
from hypothesis import given
from hypothesis import strategies as st

from llamamgr.wire import anthropic
from llamamgr.wire.anthropic import ModelEntry, Renderer
from llamamgr.wire.engine import ChatStream
from llamamgr.wire.neutral import (
    Event,
    Failed,
    Finished,
    Message,
    PromptRead,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    Usage,
)
from tests.wire.streams import CHATS, CUTS, SPOILS, THOUGHTFUL, body, pieces, spoiled, sse_events

END = Finished("stop", Usage(14, 13, 5))
SPOKEN: list[list[Event]] = [
    [TextDelta("a"), TextDelta("b"), END],
    [ThinkingDelta("why"), ThinkingDelta("?"), TextDelta("so"), END],
    [
        ThinkingDelta("x"),
        ToolCallDelta(0, "id", "f", "{"),
        ToolCallDelta(0, arguments="}"),
        Finished("tool_calls"),
    ],
    [
        TextDelta("t"),
        ToolCallDelta(0, "i", "f", '{"a":1}'),
        ToolCallDelta(1, "j", "g", ""),
        Finished("tool_calls"),
    ],
    [END],
]


def events_of(data: bytes, cuts: list[float] | None = None) -> list[Event]:
    stream = ChatStream()
    return [event for part in pieces(data, cuts or []) for event in stream.feed(part)] + stream.eof()


def streamed(events: Iterable[Event], **more: Any) -> list[tuple[str, Any]]:
    renderer = Renderer("m", "msg_1", stream=True, **more)
    out = renderer.start(14, 13) + b"".join(map(renderer.event, events))
    told = [(name, json.loads(data)) for name, data in sse_events(out)]
    assert all(name == data["type"] for name, data in told)
    return told


def whole(events: Iterable[Event], **more: Any) -> dict[str, Any]:
    renderer = Renderer("m", "msg_1", stream=False, **more)
    assert not b"".join(map(renderer.event, events))
    return dict(json.loads(renderer.whole()))


def gathered(told: list[tuple[str, Any]]) -> dict[str, Any]:
    """The message that a client puts together of events, which must come in their full order."""
    names = [name for name, _ in told if name != "ping"]
    assert names[0] == "message_start"
    assert names[-2:] == ["message_delta", "message_stop"]
    assert told[1][0] == "ping"
    message = dict(told[0][1]["message"])
    blocks: list[dict[str, Any]] = []
    is_open = False
    for name, data in told:
        if name == "content_block_start":
            assert not is_open
            assert data["index"] == len(blocks)
            blocks.append({**data["content_block"], "json": ""})
            is_open = True
        elif name == "content_block_delta":
            assert is_open
            assert data["index"] == len(blocks) - 1
            add(blocks[-1], data["delta"])
        elif name == "content_block_stop":
            assert data["index"] == len(blocks) - 1
            is_open = False
        elif name == "message_delta":
            assert not is_open
            message |= {**data["delta"], "usage": data["usage"]}
    for block in blocks:
        arguments = block.pop("json")
        if block["type"] == "tool_use":
            block["input"] = json.loads(arguments or "{}")
    return {**message, "content": blocks}


def add(block: dict[str, Any], delta: dict[str, Any]) -> None:
    match delta["type"]:
        case "text_delta":
            block["text"] += delta["text"]
        case "thinking_delta":
            block["thinking"] += delta["thinking"]
        case "signature_delta":
            block["signature"] = delta["signature"]
        case "input_json_delta":
            block["json"] += delta["partial_json"]


@pytest.mark.parametrize("events", SPOKEN)
def test_streamed_is_whole(events: list[Event]) -> None:
    assert gathered(streamed(events)) == whole(events)


@pytest.mark.parametrize("name", [*CHATS, *THOUGHTFUL])
@given(cuts=CUTS)
def test_a_real_stream_is_whole_at_any_cut(name: str, cuts: list[float]) -> None:
    assert gathered(streamed(events_of(body(name), cuts))) == whole(events_of(body(name)))


def test_a_thought_is_a_signed_block_before_the_text() -> None:
    blocks = whole(events_of(body("chat-thinking")))["content"]
    assert [block["type"] for block in blocks] == ["thinking", "text"]
    assert blocks[0]["thinking"] == "They want to know how we are."
    assert blocks[0]["signature"]


@pytest.mark.parametrize("events", SPOKEN)
def test_omitted_thoughts_leave_an_empty_signed_block(events: list[Event]) -> None:
    told = streamed(events, shows_thinking=False)
    assert "thinking_delta" not in str(told)
    message = gathered(told)
    assert message == whole(events, shows_thinking=False)
    shown = whole(events)["content"]
    assert [block["type"] for block in message["content"]] == [block["type"] for block in shown]
    for block in message["content"]:
        if block["type"] == "thinking":
            assert block["thinking"] == ""
            (original,) = [other["thinking"] for other in shown if other["type"] == "thinking"]
            turn = {"role": "assistant", "content": [block]}
            sent_back = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}, turn]}
            (_, said) = anthropic.parse_messages(json.dumps(sent_back).encode()).chat.messages
            assert isinstance(said, Message)
            assert said.thinking == original


def test_a_prompt_that_is_only_read_has_an_empty_answer() -> None:
    events = [TextDelta("<think>"), Finished("length", Usage(14, 13, 1))]
    message = whole(events, is_silent=True)
    assert (message["content"], message["stop_reason"]) == ([], "max_tokens")
    assert (message["usage"]["input_tokens"], message["usage"]["output_tokens"]) == (14, 0)
    assert gathered(streamed(events, is_silent=True)) == message


def test_a_call_is_a_block_with_its_input() -> None:
    told = whole(events_of(body("chat-tools")))
    (call,) = [block for block in told["content"] if block["type"] == "tool_use"]
    assert (call["name"], call["input"]) == ("get_weather", {"city": "Paris"})
    assert call["id"].startswith("toolu_")
    assert told["stop_reason"] == "tool_use"


def test_a_call_that_was_cut_off_is_not_made() -> None:
    told = whole([ToolCallDelta(0, "i", "f", '{"a"'), Finished("length")])
    assert (told["content"], told["stop_reason"]) == ([], "max_tokens")


def test_a_stop_sequence_is_told() -> None:
    events = events_of(body("chat-stop"))
    told = whole(events, stop_sequences=(" fed",))
    assert (told["stop_reason"], told["stop_sequence"]) == ("stop_sequence", " fed")
    assert whole(events)["stop_reason"] == "end_turn"


@pytest.mark.parametrize(("cache", "read", "cached"), [(False, 14, 0), (True, 1, 13)])
def test_the_prompts_real_size_comes_first(cache: bool, read: int, cached: int) -> None:
    renderer = Renderer("m", "i", stream=True, tells_cache=cache)
    out = b"".join(map(renderer.event, events_of(body("chat-thinking"))))
    (_, first), *_, (_, delta), _ = [(name, json.loads(data)) for name, data in sse_events(out)]
    for usage in (first["message"]["usage"], delta["usage"]):
        assert (usage["input_tokens"], usage["cache_read_input_tokens"]) == (read, cached)
    assert (first["message"]["usage"]["output_tokens"], delta["usage"]["output_tokens"]) == (0, 20)


def test_progress_with_a_long_prompt_keeps_the_connection_alive() -> None:
    told = streamed([PromptRead(100, 0, 10), PromptRead(100, 0, 60), TextDelta("a"), END])
    assert [name for name, _ in told][:4] == ["message_start", "ping", "ping", "ping"]


@pytest.mark.parametrize("cut", [["Well,"], ["We", "ll,"], ["Well, yes"], ["We", "ll, yes"]])
def test_the_start_that_the_client_gave_is_not_repeated(cut: list[str]) -> None:
    told = whole([*map(TextDelta, cut), TextDelta(" no"), END], prefill="Well,")
    assert told["content"][0]["text"] == ("".join(cut) + " no").removeprefix("Well,")


def test_a_failure_is_an_event_and_the_end() -> None:
    told = streamed([TextDelta("a"), Failed(500, "gone")])
    assert told[-1] == ("error", {"type": "error", "error": {"type": "api_error", "message": "gone"}})
    assert "message_stop" not in [name for name, _ in told]


def test_a_call_that_is_gone_back_to_is_a_failure_and_never_half_a_block() -> None:
    events = [
        ToolCallDelta(0, "a", "f", "{"),
        ToolCallDelta(1, "b", "g", "{}"),
        ToolCallDelta(0, arguments="}"),
    ]
    assert streamed(events)[-1][0] == "error"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (404, "not_found_error"),
        (413, "request_too_large"),
        (422, "invalid_request_error"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (503, "overloaded_error"),
    ],
)
def test_an_errors_type_follows_from_its_status(status: int, kind: str) -> None:
    told = json.loads(anthropic.error_body(status, "m", "req_1"))
    assert told == {"type": "error", "error": {"type": kind, "message": "m"}, "request_id": "req_1"}


def test_models_are_a_page() -> None:
    models = [ModelEntry("a", "2026-01-01T00:00:00Z", 4096, ("completion", "vision")), ModelEntry("b", "x")]
    told = json.loads(anthropic.models_answer(models, has_more=True))
    assert (told["first_id"], told["last_id"], told["has_more"]) == ("a", "b", True)
    first, second = told["data"]
    assert (first["type"], first["id"], first["display_name"]) == ("model", "a", "a")
    assert (first["created_at"], first["max_input_tokens"]) == ("2026-01-01T00:00:00Z", 4096)
    assert second["max_input_tokens"] is None
    can = {name for name, told in first["capabilities"].items() if told["supported"]}
    assert can == {"image_input", "structured_outputs"}
    assert not any(told["supported"] for told in second["capabilities"].values())


def test_models_have_every_field_that_the_official_client_requires() -> None:
    thinker = ModelEntry("a", "2026-01-01T00:00:00Z", 4096, ("completion", "thinking"))
    told = ModelInfo.model_validate_json(anthropic.model_answer(thinker), strict=False)
    assert (told.lifecycle, told.max_tokens) == ("active", 4096)
    assert told.capabilities is not None
    assert told.capabilities.thinking.types.adaptive.supported


def test_an_answer_cut_by_its_limit_is_told_apart_from_one_that_filled_the_context() -> None:
    events = [TextDelta("a"), Finished("length", Usage(14, 13, 5))]
    assert whole(events, limit=5)["stop_reason"] == "max_tokens"
    assert whole(events, limit=6)["stop_reason"] == "model_context_window_exceeded"
    assert whole(events)["stop_reason"] == "max_tokens"


def test_the_tokens_of_thoughts_are_counted() -> None:
    told = whole(events_of(body("chat-thinking")))["usage"]
    assert told["output_tokens_details"] == {"thinking_tokens": 7}
    assert "output_tokens_details" not in whole([TextDelta("a"), END])["usage"]
    assert json.loads(anthropic.models_answer([], has_more=False))["first_id"] is None


@given(name=st.sampled_from((*CHATS, *THOUGHTFUL)), spoils=SPOILS, cuts=CUTS)
def test_spoiled_streams_end_in_an_error_or_are_whole(
    name: str, spoils: list[tuple[float, bytes, int]], cuts: list[float]
) -> None:
    events = events_of(spoiled(body(name), spoils), cuts)
    told = streamed(events)
    if told[-1][0] == "error":
        assert [name for name, _ in told].count("error") == 1
    else:
        message = gathered_or_cut(told)
        assert message["type"] == "message"


def gathered_or_cut(told: list[tuple[str, Any]]) -> dict[str, Any]:
    """As ``gathered``; arguments that were spoiled as text may be no JSON, which is the model's own right."""
    try:
        return gathered(told)
    except json.JSONDecodeError:
        return dict(told[0][1]["message"])


def test_a_prompt_that_is_read_at_once_has_one_ping_and_one_that_takes_long_more() -> None:
    def pings(*looks: PromptRead) -> int:
        renderer = Renderer("m", "msg_1", stream=True)
        out = b"".join(map(renderer.event, [*looks, TextDelta("a"), END]))
        return [name for name, _ in sse_events(out)].count("ping")

    assert pings(PromptRead(9, 0, 0), PromptRead(9, 0, 9)) == 1
    assert (
        pings(
            PromptRead(900, 0, 0), PromptRead(900, 0, 300), PromptRead(900, 0, 600), PromptRead(900, 0, 900)
        )
        == 3
    )


def test_a_prompt_that_is_too_long_is_told_in_the_words_that_agents_know() -> None:
    said = "request (21004 tokens) exceeds the available context size (2048 tokens), try increasing it"
    error = json.loads(anthropic.error_body(400, said, "req_1"))["error"]
    assert error == {
        "type": "invalid_request_error",
        "message": "prompt is too long: 21004 tokens > 2048 maximum",
    }
