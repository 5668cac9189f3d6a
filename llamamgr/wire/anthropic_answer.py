"""Anthropic's answers: neutral events → its events, or one message; its errors.

Order of a stream: ``message_start`` (with the prompt's real size), ``ping``, blocks each with start, deltas and stop,
``message_delta`` (reason and usage), ``message_stop``; or ``error``, after which the connection is cut. Deltas are
written around the encoded text without building an object, since one comes for each token.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from typing import Any

import msgspec

from llamamgr.wire import golang
from llamamgr.wire.anthropic_turns import CALL_ID
from llamamgr.wire.neutral import (
    Event,
    Failed,
    Finished,
    PromptRead,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    Usage,
)
from llamamgr.wire.seals import sealed
from llamamgr.wire.shortening import TOO_LONG

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_PING = b'event: ping\ndata: {"type":"ping"}\n\n'
_STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
_encode = msgspec.json.encode


def error_body(status: int, message: str, request_id: str) -> bytes:
    """The body of any error; its type follows from the status."""
    return golang.encode({**_error(status, message), "request_id": request_id})


def stream_error(status: int, message: str) -> bytes:
    """An error inside a stream that has begun, after which the connection is to be cut."""
    return b"event: error\ndata: " + _encode(_error(status, message)) + b"\n\n"


def _error(status: int, message: str) -> dict[str, object]:
    kind = _TYPES.get(status, "invalid_request_error" if 400 <= status < 500 else "api_error")
    if told := TOO_LONG.search(message):  # agents know by these words that they must compact a conversation
        message = f"prompt is too long: {told[1]} tokens > {told[2]} maximum"
    return {"type": "error", "error": {"type": kind, "message": message}}


def count_answer(tokens: int) -> bytes:
    """The answer of ``/v1/messages/count_tokens``."""
    return b'{"input_tokens":%d}' % tokens


class _Block:
    """One content block while it comes: ``kind`` is text, thinking or tool_use."""

    def __init__(self, kind: str, index: int, id: str = "", name: str = "") -> None:  # noqa: A002 - the field's name
        self.kind = kind
        self.index = index
        self.id = id
        self.name = name
        self.pieces: list[str] = []
        self.is_shown = True
        field, delta = _FIELDS[kind]
        self.before = (
            b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":{"type":"%b","%b":'
            % (index, delta, field)
        )

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def start(self) -> dict[str, Any]:
        if self.kind == "tool_use":
            return {"type": "tool_use", "id": self.id, "name": self.name, "input": {}}
        return {"type": self.kind, self.kind: "", **({"signature": ""} if self.kind == "thinking" else {})}

    def whole(self) -> dict[str, Any] | None:
        """The block of an answer without a stream; None for a call that was cut off, which must not be made."""
        if self.kind == "tool_use":
            try:
                arguments = msgspec.json.decode(self.text or "{}", type=dict[str, msgspec.Raw])
            except (msgspec.DecodeError, RecursionError):
                return None
            return {**self.start(), "input": arguments}
        if self.kind == "thinking":
            return {
                **self.start(),
                "thinking": self.text if self.is_shown else "",
                "signature": self.signature,
            }
        return {"type": self.kind, self.kind: self.text}

    @property
    def signature(self) -> str:
        """Clients keep only thoughts that are signed; nobody checks this, but thoughts that are not shown come back in it."""
        if not self.is_shown:
            return sealed(self.text)
        return base64.b64encode(hashlib.sha256(self.text.encode()).digest()).decode()


_FIELDS = {
    "text": (b"text", b"text_delta"),
    "thinking": (b"thinking", b"thinking_delta"),
    "tool_use": (b"partial_json", b"input_json_delta"),
}


class Renderer:
    """Renders one answer.

    Feed every event to ``event``; for a stream it returns events, else nothing until ``whole``. The prompt's size must
    be known before the first of them: by a ``PromptRead``, or by ``start`` where the engine sends none.
    Without ``shows_thinking`` the blocks of thoughts are empty but for their signature. ``is_silent``: no token was asked
    for, so the one that an engine samples all the same is not told. ``limit`` is how many tokens were asked for at most, None
    where another limit holds too: an answer that was cut before it has filled the context.
    """

    def __init__(
        self,
        model: str,
        id: str,  # noqa: A002 - the field's name
        *,
        stream: bool,
        stop_sequences: Iterable[str] = (),
        tells_cache: bool = False,
        prefill: str = "",
        shows_thinking: bool = True,
        is_silent: bool = False,
        limit: int | None = None,
    ) -> None:
        self.failure: Failed | None = None
        self.started = not stream
        self.is_fresh = True  # it has told nothing but that it has begun: another engine may go on
        self._model = model
        self._id = id
        self._stream = stream
        self._stops = frozenset(stop_sequences)
        self._tells_cache = tells_cache
        self._prefill = prefill
        self._shows_thinking = shows_thinking
        self._is_silent = is_silent
        self._limit = limit
        self._thoughts = 0
        self._blocks: list[_Block] = []
        self._calls: dict[int, _Block] = {}
        self._open: _Block | None = None
        self._finished: Finished | None = None

    def start(self, tokens: int, cached: int = 0) -> bytes:
        """``message_start`` and the first ``ping``; nothing when they have been."""
        if self.started:
            return b""
        self.started = True
        usage = self._usage(Usage(tokens, cached, 0))
        message = {**self._head(), "content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}
        return _event("message_start", {"message": message}) + _PING

    def event(self, event: Event) -> bytes:
        """What this event gives to a client that streams."""
        if self._is_silent and isinstance(event, TextDelta | ThinkingDelta | ToolCallDelta):
            return b""
        self.is_fresh = self.is_fresh and isinstance(event, PromptRead)
        match event:
            case TextDelta(text=text):
                text = self._without_prefill(text) if self._prefill else text
                return self._delta("text", text) if text else b""
            case ThinkingDelta(text=text):
                self._thoughts += 1  # the engine sends a piece for each token
                return self._delta("thinking", text)
            case ToolCallDelta():
                return self._call(event)
            case PromptRead():
                return self._read(event) if self._stream else b""
            case Finished():
                self._finished = event
                return self._end(event) if self._stream else b""
            case Failed():
                self.failure = event
                return stream_error(event.status, event.message) if self._stream else b""

    def _read(self, seen: PromptRead) -> bytes:
        """The start, and then a ping for each look at a prompt that takes long; once it is read something better follows."""
        if not self.started:
            return self.start(seen.total, seen.cached)
        return _PING if seen.read < seen.total else b""

    def whole(self) -> bytes:
        """The answer to a request without ``stream``, once ``Finished`` has come."""
        if self._finished is None:
            raise ValueError("the answer is not finished")
        content = [shown for block in self._blocks if (shown := block.whole()) is not None]
        return golang.encode(
            {
                **self._head(),
                "content": content,
                **self._reason(self._finished),
                "usage": self._usage(self._finished.usage),
            }
        )

    def _head(self) -> dict[str, Any]:
        return {"id": self._id, "type": "message", "role": "assistant", "model": self._model}

    def _delta(self, kind: str, text: str) -> bytes:
        block = self._open
        before = b""
        if block is None or block.kind != kind:
            before = self._close()
            block = _Block(kind, len(self._blocks))
            block.is_shown = kind != "thinking" or self._shows_thinking
            before += self._begin(block)
        if not self._stream or kind == "thinking":
            block.pieces.append(
                text
            )  # a streamed text is not asked for again; a thought is signed at its end
        if not (self._stream and text and block.is_shown):
            return before
        return before + block.before + _encode(text) + b"}}\n\n"

    def _call(self, delta: ToolCallDelta) -> bytes:
        block = self._calls.get(delta.index)
        before = b""
        if block is None:
            before = self._close()
            block = _Block(
                "tool_use", len(self._blocks), _call_id(delta.id, self._id, delta.index), delta.name
            )
            self._calls[delta.index] = block
            before += self._begin(block)
        elif block is not self._open:
            self.failure = Failed(
                502, "the engine went back to a tool call it had finished", "protocol_error"
            )
            return stream_error(502, self.failure.message) if self._stream else b""
        block.pieces.append(delta.arguments)
        if not self._stream or not delta.arguments:
            return before
        return before + block.before + _encode(delta.arguments) + b"}}\n\n"

    def _begin(self, block: _Block) -> bytes:
        self._blocks.append(block)
        self._open = block
        if not self._stream:
            return b""
        return _event("content_block_start", {"index": block.index, "content_block": block.start()})

    def _close(self) -> bytes:
        block, self._open = self._open, None
        if block is None or not self._stream:
            return b""
        signed = b""
        if block.kind == "thinking":
            delta = {"type": "signature_delta", "signature": block.signature}
            signed = _event("content_block_delta", {"index": block.index, "delta": delta})
        return signed + _event("content_block_stop", {"index": block.index})

    def _end(self, finished: Finished) -> bytes:
        delta = _event(
            "message_delta", {"delta": self._reason(finished), "usage": self._usage(finished.usage)}
        )
        return self.start(finished.usage.prompt, finished.usage.cached) + self._close() + delta + _STOP

    def _reason(self, finished: Finished) -> dict[str, str | None]:
        if finished.reason == "length":
            is_full = self._limit is not None and finished.usage.completion < self._limit
            return {
                "stop_reason": "model_context_window_exceeded" if is_full else "max_tokens",
                "stop_sequence": None,
            }
        if finished.reason == "tool_calls" or self._calls:
            return {"stop_reason": "tool_use", "stop_sequence": None}
        if finished.stop_word and finished.stop_word in self._stops:
            return {"stop_reason": "stop_sequence", "stop_sequence": finished.stop_word}
        return {"stop_reason": "end_turn", "stop_sequence": None}

    def _usage(self, usage: Usage) -> dict[str, Any]:
        """Cached tokens are told apart only to a client that asked for caching: another counts ``input_tokens``."""
        cached = usage.cached if self._tells_cache else 0
        return {
            "input_tokens": usage.prompt - cached,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": cached,
            "output_tokens": 0 if self._is_silent else usage.completion,
            **self._thinking_usage(usage),
        }

    def _thinking_usage(self, usage: Usage) -> dict[str, Any]:
        if not self._thoughts:
            return {}
        return {"output_tokens_details": {"thinking_tokens": min(self._thoughts, usage.completion)}}

    def _without_prefill(self, text: str) -> str:
        """The engine repeats the start that the client gave; Anthropic's answer goes on from it."""
        left = self._prefill
        if left.startswith(text):
            self._prefill = left[len(text) :]
            return ""
        self._prefill = ""
        return text.removeprefix(left)


def _call_id(id: str, message: str, index: int) -> str:  # noqa: A002 - the field's name
    return id if id.startswith(CALL_ID) else f"{CALL_ID}{id or f'{message}_{index}'}"


def _event(name: str, fields: dict[str, Any]) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + _encode({"type": name, **fields}) + b"\n\n"
