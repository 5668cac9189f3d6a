"""Neutral events → OpenAI's chat completion, or its chunks: for answers that the engine did not write in this dialect itself.

Shapes and order are those that llama-server has, whose chunks pass through for other models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from llamamgr.wire import golang
from llamamgr.wire.neutral import (
    Alternative,
    Event,
    Failed,
    Finished,
    Logprob,
    PromptRead,
    TextDelta,
    ThinkingDelta,
    ToolCall,
    ToolCallDelta,
    Usage,
)

_encode = msgspec.json.encode
_CALL_ID = "call_"


class Head(msgspec.Struct, frozen=True):
    """What every object of an answer starts with; ``created`` is seconds since the epoch."""

    id: str
    created: int
    model: str
    system_fingerprint: str


class Renderer:
    """Renders one answer.

    Feed every event to ``event``; for a stream it returns chunks, else nothing until ``whole``. ``new_id`` gives a fresh suffix for
    each call's id.
    """

    def __init__(
        self, head: Head, *, stream: bool, include_usage: bool = False, new_id: Callable[[], str]
    ) -> None:
        self._head = {"id": head.id, "created": head.created, "model": head.model}
        self._head["system_fingerprint"] = head.system_fingerprint
        self._stream = stream
        self._include_usage = include_usage
        self._new_id = new_id
        self._begun = False
        self._text: list[str] = []
        self._thinking: list[str] = []
        self._logprobs: list[Logprob] = []
        self._calls: dict[int, ToolCall] = {}
        self._finished: Finished | None = None
        start = _encode({**self._head, "object": "chat.completion.chunk"})[:-1]
        self._start = b"data: " + start + b',"choices":['
        self._delta = self._start + b'{"finish_reason":null,"index":0,"delta":'

    def event(self, event: Event) -> bytes:
        """What this event gives to a client that streams."""
        match event:
            case TextDelta(text, logprobs):
                self._text.append(text)
                return self._piece(b'{"content":' + _encode(text) + b"}", logprobs)
            case ThinkingDelta(text, logprobs):
                self._thinking.append(text)
                told = _encode(text)
                return self._piece(b'{"reasoning":' + told + b',"reasoning_content":' + told + b"}", logprobs)
            case ToolCallDelta():
                return self._piece(_encode({"tool_calls": [self._call(event)]}), ())
            case Finished():
                self._finished = event
                return self._end(event) if self._stream else b""
            case PromptRead() | Failed():
                return b""

    def whole(self) -> bytes:
        """The answer to a request without ``stream``, once ``Finished`` has come."""
        if self._finished is None:
            raise ValueError("the answer is not finished")
        text, thought = "".join(self._text), "".join(self._thinking)
        message: dict[str, Any] = {"role": "assistant", "content": text if text or not self._calls else None}
        if thought:
            message |= {"reasoning": thought, "reasoning_content": thought}
        if self._calls:
            message["tool_calls"] = [_shown(call) for call in self._calls.values()]
        choice: dict[str, Any] = {
            "finish_reason": self._reason(self._finished),
            "index": 0,
            "message": message,
        }
        if self._logprobs:
            choice["logprobs"] = _logprobs(self._logprobs)
        told = {"object": "chat.completion", "choices": [choice], "usage": _usage(self._finished.usage)}
        return golang.encode({**self._head, **told})

    def _piece(self, delta: bytes, logprobs: Sequence[Logprob]) -> bytes:
        """A chunk, written around the encoded delta: one comes for each token."""
        if not self._stream:
            self._logprobs += logprobs
            return b""
        shown = b',"logprobs":' + _encode(_logprobs(logprobs)) if logprobs else b""
        return self._begin() + self._delta + delta + shown + b"}]}\n\n"

    def _begin(self) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        return self._delta + b'{"role":"assistant","content":null}}]}\n\n'

    def _call(self, delta: ToolCallDelta) -> dict[str, Any]:
        """The call as far as these bytes tell it: its id and name come with the first."""
        before = self._calls.get(delta.index)
        if before is None:
            call = ToolCall(
                delta.id or _CALL_ID + self._new_id(), delta.name, delta.arguments, len(self._calls)
            )
            self._calls[delta.index] = call
            return {"index": call.index, **_shown(call)}
        self._calls[delta.index] = msgspec.structs.replace(
            before, arguments=before.arguments + delta.arguments
        )
        return {"index": before.index, "function": {"arguments": delta.arguments}}

    def _end(self, finished: Finished) -> bytes:
        choice = {"finish_reason": self._reason(finished), "index": 0, "delta": {}}
        out = self._begin() + self._start + _encode(choice) + b"]}\n\n"
        if self._include_usage:
            out += self._start + b'],"usage":' + _encode(_usage(finished.usage)) + b"}\n\n"
        return out + b"data: [DONE]\n\n"

    def _reason(self, finished: Finished) -> str:
        return "tool_calls" if self._calls and finished.reason != "length" else finished.reason


def _shown(call: ToolCall) -> dict[str, Any]:
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "completion_tokens": usage.completion,
        "prompt_tokens": usage.prompt,
        "total_tokens": usage.prompt + usage.completion,
        "prompt_tokens_details": {"cached_tokens": usage.cached},
    }


def _logprobs(logprobs: Iterable[Logprob]) -> dict[str, Any]:
    return {
        "content": [{**_token(one), "top_logprobs": [_token(top) for top in one.top]} for one in logprobs]
    }


def _token(one: Logprob | Alternative) -> dict[str, Any]:
    return {"token": one.token, "logprob": one.logprob, "bytes": one.bytes or None}
