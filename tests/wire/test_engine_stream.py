"""llama-server's streams as neutral events: recorded ones, failing ones, and any cut and mutation of them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamamgr.wire.engine import ChatStream, CompletionStream
from llamamgr.wire.neutral import (
    Event,
    Failed,
    Finished,
    Logprob,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    Usage,
)
from tests.wire.streams import CHATS, COMPLETIONS, CUTS, body, pieces

SENTENCE = "Hello from the tiny llama."


def told(name: str, parts: list[bytes] | None = None, top_logprobs: int = 0) -> list[Event]:
    """Every event of a stream, its end included."""
    stream = (CompletionStream if name in COMPLETIONS else ChatStream)(top_logprobs)
    events = [event for part in (parts or [body(name)]) for event in stream.feed(part)]
    return events + stream.eof()


def text(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def chunk(delta: dict[str, object], reason: str | None = None) -> bytes:
    return (
        b"data: %s\n\n"
        % json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}).encode()
    )


@pytest.mark.parametrize(
    ("name", "said", "reason", "completion"),
    [
        ("chat", SENTENCE, "stop", 7),
        ("chat-length", "Hello from", "length", 2),
        ("completion", SENTENCE, "stop", 7),
        ("completion-length", "Hello from the", "length", 3),
        ("completion-stop", "Hello from the", "stop", 4),
        ("completion-logprobs", SENTENCE, "stop", 7),
    ],
)
def test_a_real_stream_tells_its_text_and_one_end(name: str, said: str, reason: str, completion: int) -> None:
    events = told(name)
    end = events[-1]
    assert text(events) == said
    assert isinstance(end, Finished)
    assert (end.reason, end.usage.prompt, end.usage.completion) == (reason, 6, completion)
    assert end.timings.prompt_ms > 0
    assert end.timings.predicted_ms > 0
    assert not any(isinstance(event, Finished | Failed) for event in events[:-1])


def test_a_completion_tells_what_came_from_the_cache() -> None:
    end = told("completion")[-1]
    assert isinstance(end, Finished)
    assert end.usage.cached == 5


def test_a_chat_tells_what_came_from_the_cache() -> None:
    end = told("chat-logprobs")[-1]
    assert isinstance(end, Finished)
    assert end.usage == Usage(6, 5, 7)


def test_a_tool_call_is_told_as_one() -> None:
    call, end = told("chat-tools")
    assert isinstance(call, ToolCallDelta)
    assert (call.index, call.name, call.arguments) == (0, "get_weather", '{"city":"Paris"}')
    assert len(call.id) == 32
    assert isinstance(end, Finished)
    assert end.reason == "tool_calls"


@pytest.mark.parametrize("name", ["chat-logprobs", "completion-logprobs"])
@pytest.mark.parametrize("top", [0, 1, 2])
def test_log_probabilities_ride_on_their_text_with_the_alternatives_asked_for(name: str, top: int) -> None:
    events = told(name, top_logprobs=top)
    probabilities = [one for event in events if isinstance(event, TextDelta) for one in event.logprobs]
    assert [one.token for one in probabilities] == ["Hello", " from", " the", " tiny", " llama", "."]
    assert {len(one.top) for one in probabilities} == {top}
    assert probabilities[0] == Logprob("Hello", 0.0, tuple(b"Hello"), probabilities[0].top)


@pytest.mark.parametrize("name", [*CHATS, *COMPLETIONS])
@given(cuts=CUTS)
def test_any_cut_of_a_real_stream_gives_the_same_events(name: str, cuts: list[float]) -> None:
    assert told(name, pieces(body(name), cuts)) == told(name)


@pytest.mark.parametrize("name", [*CHATS, *COMPLETIONS])
def test_a_stream_cut_short_anywhere_fails_and_never_finishes(name: str) -> None:
    data = body(name)
    # the blank line after the last event is part of it
    for size in range(0, len(data) - 2, 7):
        end = told(name, [data[:size]])[-1]
        assert end == Failed(502, "the engine's answer ended before it was complete", "protocol_error")


@given(data=st.binary(max_size=60), name=st.sampled_from([*CHATS, *COMPLETIONS]), at=st.floats(0, 1))
def test_mutated_streams_end_exactly_once(data: bytes, name: str, at: float) -> None:
    good = body(name)
    place = round(at * len(good))
    events = told(name, [good[:place] + data + good[place + len(data) :]])
    assert [isinstance(event, Finished | Failed) for event in events].count(True) == 1
    assert isinstance(events[-1], Finished | Failed)


def test_thinking_and_text_are_told_apart() -> None:
    data = chunk({"role": "assistant", "content": None}) + chunk({"reasoning_content": "hm"})
    data += chunk({"reasoning_content": "!", "content": "so"}) + chunk({}, "stop") + b":\n\ndata: [DONE]\n\n"
    assert told("chat", [data]) == [
        ThinkingDelta("hm"),
        ThinkingDelta("!"),
        TextDelta("so"),
        Finished("stop"),
    ]


def test_pieces_of_tool_calls_keep_their_index() -> None:
    calls = [
        {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}},
        {"index": 0, "function": {"arguments": "{}"}},
        {"index": 1, "id": "b", "function": {"name": "g", "arguments": "{"}},
    ]
    data = (
        b"".join(chunk({"tool_calls": [call]}) for call in calls)
        + chunk({}, "tool_calls")
        + b"data: [DONE]\n\n"
    )
    assert told("chat", [data])[:-1] == [
        ToolCallDelta(0, "a", "f", ""),
        ToolCallDelta(0, arguments="{}"),
        ToolCallDelta(1, "b", "g", "{"),
    ]


def test_usage_is_counted_from_timings_where_there_is_none() -> None:
    timings = b'data: {"choices":[],"timings":{"cache_n":2,"prompt_n":3,"predicted_n":4,"prompt_ms":1.5}}\n\n'
    (end,) = told("chat", [chunk({}, "stop") + timings + b"data: [DONE]\n\n"])
    assert isinstance(end, Finished)
    assert (end.usage, end.timings.prompt_ms) == (Usage(5, 2, 4), 1.5)


@pytest.mark.parametrize("kind", [ChatStream, CompletionStream])
@pytest.mark.parametrize(
    "line",
    [
        b'data: {"error":{"code":500,"message":"Context size has been exceeded.","type":"server_error"}}\n\n',
        b'error: {"code":500,"message":"Context size has been exceeded.","type":"server_error"}\n\n',
        b'event: error\ndata: {"error":{"message":"Context size has been exceeded."}}\n\n',
    ],
)
def test_an_error_in_mid_stream_is_the_end(kind: type[ChatStream | CompletionStream], line: bytes) -> None:
    stream = kind()
    assert stream.feed(line + line) == [Failed(500, "Context size has been exceeded.")]
    assert stream.ended
    assert stream.feed(line) == stream.eof() == []


def test_an_error_keeps_the_status_of_its_kind() -> None:
    (failed,) = ChatStream().feed(b'data: {"error":{"message":"m","type":"unavailable_error"}}\n\n')
    assert failed == Failed(503, "m", "unavailable_error")


def test_what_cannot_be_read_fails_after_what_could() -> None:
    first, failed = ChatStream().feed(chunk({"content": "a"}) + b"data: {garbage}\n\n")
    assert first == TextDelta("a")
    assert isinstance(failed, Failed)
    assert (failed.status, failed.type) == (502, "protocol_error")


def test_done_without_a_reason_is_no_good_end() -> None:
    (failed,) = ChatStream().feed(b"data: [DONE]\n\n")
    assert isinstance(failed, Failed)
