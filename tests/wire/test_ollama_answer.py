"""Ollama's answers: byte for byte those of a real Ollama, given the same events."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamamgr.wire import ollama
from llamamgr.wire.engine import ChatStream, CompletionStream
from llamamgr.wire.neutral import (
    Alternative,
    Event,
    Failed,
    Finished,
    Logprob,
    TextDelta,
    ThinkingDelta,
    Timings,
    ToolCallDelta,
    Usage,
)
from tests.golden import replay
from tests.wire.streams import CHATS, COMPLETIONS, body

_OK = [one for one in replay.load() if one.path in ("/api/generate", "/api/chat") and one.status == 200]
LOADED = [
    one for one in _OK if '"done_reason":"load"' in one.answer or '"done_reason":"unload"' in one.answer
]
ANSWERED = [one for one in _OK if one not in LOADED]


def events_of(line: dict[str, Any]) -> Iterator[Event]:
    """What must have happened for Ollama to say ``line``."""
    message = line.get("message") or {}
    text = line.get("response") or message.get("content")
    logprobs = tuple(map(logprob_of, line.get("logprobs", ())))
    if text:
        yield TextDelta(text, logprobs)
    for call in message.get("tool_calls", ()):
        function = call["function"]
        # the engine spaces its JSON as the model did
        yield ToolCallDelta(
            function["index"], call["id"], function["name"], json.dumps(function["arguments"], indent=1)
        )
    if line["done"]:
        usage = Usage(line["prompt_eval_count"], 0, line["eval_count"])
        timings = Timings(line["prompt_eval_duration"] / 1e6, line["eval_duration"] / 1e6)
        yield Finished(line["done_reason"], usage, timings)


def logprob_of(one: dict[str, Any]) -> Logprob:
    top = tuple(
        Alternative(a["token"], float(a["logprob"]), tuple(a.get("bytes", ())))
        for a in one.get("top_logprobs", ())
    )
    return Logprob(one["token"], float(one["logprob"]), tuple(one["bytes"]), top)


@pytest.mark.parametrize("exchange", ANSWERED, ids=lambda one: one.name)
def test_the_same_events_give_the_recorded_bytes(exchange: replay.Exchange) -> None:
    lines = [json.loads(line) for line in exchange.answer.splitlines()]
    last = lines[-1]
    times = iter([line["created_at"] for line in lines])
    kind: ollama.Kind = "chat" if exchange.path == "/api/chat" else "generate"
    stream = exchange.json.get("stream", True)
    renderer = ollama.Renderer(
        kind,
        exchange.json["model"],
        stream=stream,
        now=lambda: next(times),
        elapsed=lambda: int(last["total_duration"]),
    )
    renderer.load_duration = last["load_duration"]
    renderer.context = last.get("context", ())
    written = b"".join(renderer.event(event) for line in lines for event in events_of(line))
    assert (written if stream else renderer.whole()).decode() == exchange.answer


@pytest.mark.parametrize("exchange", LOADED, ids=lambda one: one.name)
def test_loads_and_unloads_are_answered_as_recorded(exchange: replay.Exchange) -> None:
    recorded = json.loads(exchange.answer)
    unload = recorded["done_reason"] == "unload"
    kind: ollama.Kind = "chat" if exchange.path == "/api/chat" else "generate"
    answer = ollama.load_answer(kind, recorded["model"], recorded["created_at"], unload=unload)
    assert answer.decode() == exchange.answer


@pytest.mark.parametrize(
    ("name", "record"),
    [
        ("chat", "chat-stream"),
        ("chat-length", "chat-num-predict"),
        ("chat-tools", "chat-tools-stream"),
        ("completion", "generate-stream"),
        ("completion-length", "generate-num-predict-stream"),
        ("completion-logprobs", "generate-logprobs-stream"),
    ],
)
def test_a_real_engines_answer_is_what_ollama_made_of_its_own(name: str, record: str) -> None:
    (exchange,) = replay.load([record])
    renderer = ollama.Renderer(
        "chat" if name in CHATS else "generate", "tinychat", stream=True, now=lambda: "now", elapsed=lambda: 1
    )
    last = json.loads(exchange.answer.splitlines()[-1])
    renderer.load_duration = 1
    renderer.context = last.get("context", ())
    stream = ChatStream() if name in CHATS else CompletionStream()
    written = b"".join(map(renderer.event, stream.feed(body(name))))
    # the same answers, not quite the same prompts
    written = re.sub(rb'(?<="prompt_eval_count":)\d+', b"%d" % last["prompt_eval_count"], written)
    assert not replay.difference(exchange, 200, "application/x-ndjson", written.decode())


_TOOL_CALLS = st.builds(
    ToolCallDelta,
    index=st.integers(0, 2),
    id=st.sampled_from(["", "a"]),
    name=st.sampled_from(["f", ""]),
    arguments=st.sampled_from(["", "{}", '{"a":', "1}"]),
)
_LOGPROBS = st.lists(
    st.builds(Logprob, token=st.text(max_size=2), logprob=st.floats(-30, 0)), max_size=2
).map(tuple)
_EVENTS = st.lists(
    st.builds(TextDelta, st.text(st.characters(codec="utf-8"), min_size=1), _LOGPROBS)
    | st.builds(ThinkingDelta, st.text(min_size=1, max_size=5).filter(str.isprintable))
    | _TOOL_CALLS
)


@pytest.mark.parametrize("kind", ["chat", "generate"])
@given(events=_EVENTS, reason=st.sampled_from(["stop", "length", "tool_calls"]))
def test_a_stream_says_what_the_whole_says(kind: ollama.Kind, events: list[Event], reason: Any) -> None:
    end = Finished(reason, Usage(3, 1, len(events)), Timings(1.5, 2.5))
    streaming, collecting = (
        ollama.Renderer(kind, "m", stream=stream, now=lambda: "now", elapsed=lambda: 9)
        for stream in (True, False)
    )
    lines = [json.loads(line) for event in (*events, end) for line in streaming.event(event).splitlines()]
    assert all(collecting.event(event) == b"" for event in (*events, end))
    whole = json.loads(collecting.whole())
    assert joined(lines) == joined([whole])
    rest = ("done", "done_reason", "total_duration", "prompt_eval_count", "eval_count", "eval_duration")
    assert [lines[-1].get(name) for name in rest] == [whole.get(name) for name in rest]
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]


def joined(lines: list[dict[str, Any]]) -> tuple[str, str, list[Any], list[Any]]:
    said = [line.get("message", line) for line in lines]
    return (
        "".join(one.get("content", one.get("response", "")) for one in said),
        "".join(one.get("thinking", "") for one in said),
        [call for one in said for call in one.get("tool_calls", ())],
        [one for line in lines for one in line.get("logprobs", ())],
    )


def test_thinking_has_a_field_of_its_own() -> None:
    renderer = ollama.Renderer("chat", "m", stream=True, now=lambda: "now")
    assert renderer.event(ThinkingDelta("<hm>")) == (
        b'{"model":"m","created_at":"now","message":{"role":"assistant","content":"",'
        b'"thinking":"\\u003chm\\u003e"},"done":false}\n'
    )


def test_calls_are_joined_by_their_index_and_told_in_its_order() -> None:
    renderer = ollama.Renderer("chat", "m", stream=True, now=lambda: "now")
    for delta in (
        ToolCallDelta(1, "b", "g"),
        ToolCallDelta(0, "a", "f", '{"x":'),
        ToolCallDelta(0, arguments="1}"),
    ):
        assert renderer.event(delta) == b""
    last = json.loads(renderer.event(Finished("tool_calls")))
    assert last["message"]["tool_calls"] == [
        {"id": "a", "function": {"index": 0, "name": "f", "arguments": {"x": 1}}},
        {"id": "b", "function": {"index": 1, "name": "g", "arguments": {}}},
    ]


def test_a_count_of_zero_is_left_out() -> None:
    renderer = ollama.Renderer("generate", "m", stream=True, now=lambda: "now")
    assert renderer.event(Finished("stop", Usage(0, 0, 2))) == (
        b'{"model":"m","created_at":"now","response":"","done":true,"done_reason":"stop","eval_count":2}\n'
    )


def test_a_call_that_was_cut_off_is_not_made() -> None:
    renderer = ollama.Renderer("chat", "m", stream=True, now=lambda: "now")
    renderer.event(ToolCallDelta(0, "a", "f", "{}"))
    renderer.event(ToolCallDelta(1, "b", "g", '{"city":"Par'))
    last = json.loads(renderer.event(Finished("length")))
    assert [call["id"] for call in last["message"]["tool_calls"]] == ["a"]
    assert last["done_reason"] == "length"


def test_a_failure_is_the_last_line_and_is_kept() -> None:
    renderer = ollama.Renderer("generate", "m", stream=True, now=lambda: "now")
    failed = Failed(500, "a <crash>")
    assert renderer.event(failed) == b'{"error":"a \\u003ccrash\\u003e"}\n'
    assert renderer.failure == failed


def test_a_whole_answer_needs_its_end() -> None:
    renderer = ollama.Renderer("generate", "m", stream=False, now=lambda: "now")
    renderer.event(TextDelta("a"))
    assert renderer.text == "a"
    with pytest.raises(ValueError, match="not finished"):
        renderer.whole()


@pytest.mark.parametrize("name", [*CHATS, *COMPLETIONS])
def test_usage_is_conserved_from_engine_to_client(name: str) -> None:
    stream = ChatStream() if name in CHATS else CompletionStream()
    events = stream.feed(body(name))
    end = events[-1]
    assert isinstance(end, Finished)
    renderer = ollama.Renderer("chat", "m", stream=True, now=lambda: "now")
    last = json.loads(b"".join(map(renderer.event, events)).splitlines()[-1])
    assert (last["prompt_eval_count"], last["eval_count"]) == (end.usage.prompt, end.usage.completion)
