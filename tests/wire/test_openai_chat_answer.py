"""Neutral events as OpenAI's chunks, and as one completion: both tell the same."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from llamamgr.wire.neutral import (
    Alternative,
    Event,
    Finished,
    Logprob,
    PromptRead,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    Usage,
)
from llamamgr.wire.openai_chat_answer import Head, Renderer

HEAD = Head("chatcmpl-1", 1_700_000_000, "mine", "b1-abc")
DONE = Finished("stop", Usage(7, 3, 5))


def rendered(events: Sequence[Event], *, stream: bool, include_usage: bool = True) -> bytes:
    numbers = itertools.count()
    renderer = Renderer(HEAD, stream=stream, include_usage=include_usage, new_id=lambda: str(next(numbers)))
    out = b"".join(renderer.event(event) for event in events)
    return out if stream else out + renderer.whole()


def chunks(events: Sequence[Event], *, include_usage: bool = True) -> list[Any]:
    *frames, done, empty = rendered(events, stream=True, include_usage=include_usage).split(b"\n\n")
    assert (done, empty) == (b"data: [DONE]", b"")
    told = [json.loads(frame.removeprefix(b"data: ")) for frame in frames]
    assert all(one["id"] == HEAD.id and one["object"] == "chat.completion.chunk" for one in told)
    return told


def joined(told: list[Any]) -> dict[str, Any]:
    """What a client makes of chunks."""
    message: dict[str, Any] = {"content": "", "reasoning": "", "reasoning_content": ""}
    calls: dict[int, dict[str, str]] = {}
    tokens: list[Any] = []
    finish = usage = None
    for one in told:
        usage = one.get("usage", usage)
        for choice in one["choices"]:
            finish = choice["finish_reason"] or finish
            tokens += (choice.get("logprobs") or {"content": []})["content"]
            for name in message:
                message[name] += choice["delta"].get(name) or ""
            for call in choice["delta"].get("tool_calls", ()):
                known = calls.setdefault(call["index"], {"id": "", "name": "", "arguments": ""})
                known["id"] += call.get("id", "")
                known["name"] += call["function"].get("name", "")
                known["arguments"] += call["function"]["arguments"]
    return {
        **message,
        "calls": [calls[key] for key in sorted(calls)],
        "tokens": tokens,
        "end": (finish, usage),
    }


def as_joined(whole: dict[str, Any]) -> dict[str, Any]:
    [choice] = whole["choices"]
    message = choice["message"]
    calls = [{"id": call["id"], **call["function"]} for call in message.get("tool_calls", ())]
    return {
        "content": message["content"] or "",
        "reasoning": message.get("reasoning", ""),
        "reasoning_content": message.get("reasoning_content", ""),
        "calls": calls,
        "tokens": choice.get("logprobs", {"content": []})["content"],
        "end": (choice["finish_reason"], whole["usage"]),
    }


probabilities = st.builds(
    lambda token, p: Logprob(token, p, tuple(token.encode()), (Alternative(token, p),)),
    st.text(max_size=3),
    st.floats(-50, 0),
)
texts = st.builds(
    lambda kind, text, told: kind(text, tuple(told)),
    st.sampled_from([TextDelta, ThinkingDelta]),
    st.text(min_size=1, max_size=5),
    st.lists(probabilities, max_size=2),
)
calls = st.builds(
    lambda index, arguments: ToolCallDelta(index, "", "f", arguments), st.integers(0, 3), st.text(max_size=3)
)


@given(st.lists(texts | calls | st.just(PromptRead(7, 3)), max_size=12), st.sampled_from(["stop", "length"]))
def test_a_stream_tells_what_the_whole_does(events: list[Event], reason: Any) -> None:
    said = [*events, Finished(reason, Usage(7, 3, 5))]
    assert joined(chunks(said)) == as_joined(json.loads(rendered(said, stream=False)))


def test_a_stream_begins_with_the_role_and_ends_with_the_reason_and_the_usage() -> None:
    first, text, last, usage = chunks([TextDelta("hi"), DONE])
    assert first["choices"] == [
        {"finish_reason": None, "index": 0, "delta": {"role": "assistant", "content": None}}
    ]
    assert text["choices"][0]["delta"] == {"content": "hi"}
    assert last["choices"] == [{"finish_reason": "stop", "index": 0, "delta": {}}]
    assert usage["choices"] == []
    assert usage["usage"] == {
        "prompt_tokens": 7,
        "completion_tokens": 5,
        "total_tokens": 12,
        "prompt_tokens_details": {"cached_tokens": 3},
    }
    assert len(chunks([TextDelta("hi"), DONE], include_usage=False)) == 3


def test_an_answer_that_is_a_call_has_no_content_and_says_so() -> None:
    whole = json.loads(rendered([ToolCallDelta(0, "", "f", "{}"), DONE], stream=False))
    [choice] = whole["choices"]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", None)
    assert choice["message"]["tool_calls"] == [
        {"id": "call_0", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    ]


def test_an_answer_cut_by_the_limit_says_so_even_with_a_call() -> None:
    said = [ToolCallDelta(0, "", "f", "{}"), Finished("length")]
    assert json.loads(rendered(said, stream=False))["choices"][0]["finish_reason"] == "length"
