"""Answers of ``/v1/responses``: neutral events → OpenAI's typed events, or one response object.

Every event has its ``sequence_number``; items (reasoning, message, function calls) come one after the other, each with
its ``output_index``. A stream ends with ``response.completed``, ``response.incomplete`` (the limit was met) or
``response.failed``.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from llamamgr.wire import golang
from llamamgr.wire.neutral import (
    Event,
    Failed,
    Finished,
    Message,
    PromptRead,
    TextDelta,
    ThinkingDelta,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from llamamgr.wire.responses_items import SEAL
from llamamgr.wire.responses_request import ResponseRequest

_encode = msgspec.json.encode


class _Item:
    """One output item while it comes."""

    def __init__(self, kind: str, index: int, id: str, call_id: str = "", name: str = "") -> None:  # noqa: A002
        self.kind = kind
        self.index = index
        self.id = id
        self.call_id = call_id
        self.name = name
        self.pieces: list[str] = []
        self.delta_head = b""

    @property
    def text(self) -> str:
        return "".join(self.pieces)


class Renderer:
    """Renders one answer.

    ``id`` is the response's; ``new_id`` gives a fresh suffix for each item's. Feed every event to ``event``; for a
    stream it returns events, else nothing until ``whole``. ``now`` is seconds since the epoch.
    """

    def __init__(
        self,
        request: ResponseRequest,
        id: str,  # noqa: A002 - the field's name
        *,
        new_id: Callable[[], str],
        now: Callable[[], int],
    ) -> None:
        self.failure: Failed | None = None
        self.is_finished = False
        self._request = request
        self._id = id
        self._new_id = new_id
        self._now = now
        self._created = now()
        self._sequence = 0
        self._items: list[_Item] = []
        self._open: _Item | None = None
        self._calls: dict[int, _Item] = {}
        self._begun = False
        self._usage = Usage()
        self._thoughts = 0
        self._cut = False

    @property
    def message(self) -> Message:
        """What was answered, as a turn to go on from."""
        said = {
            kind: [item for item in self._items if item.kind == kind] for kind in ("message", "reasoning")
        }
        calls = tuple(
            ToolCall(item.call_id, item.name, item.text or "{}", place)
            for place, item in enumerate(item for item in self._items if item.kind == "function_call")
        )
        return Message(
            "assistant",
            "".join(item.text for item in said["message"]),
            thinking="".join(item.text for item in said["reasoning"]),
            tool_calls=calls,
        )

    def event(self, event: Event) -> bytes:
        """What this event gives to a client that streams."""
        streams = self._request.stream
        match event:
            case TextDelta(text=text):
                out = self._delta("message", text)
            case ThinkingDelta(text=text):
                self._thoughts += 1  # the engine sends a piece for each token
                out = self._delta("reasoning", text)
            case ToolCallDelta():
                out = self._call(event)
            case PromptRead():
                out = self._begin()
            case Finished():
                self.is_finished = True
                self._usage = event.usage
                self._cut = event.reason == "length"
                out = self._begin() + self._close() + self._last()
            case Failed():
                self.failure = event
                out = self.failed(event.message)
        return out if streams else b""

    def whole(self) -> bytes:
        """The answer to a request without ``stream``."""
        return golang.encode(self.response(self.status))

    @property
    def status(self) -> str:
        return "incomplete" if self._cut else "completed"

    def failed(self, message: str) -> bytes:
        """The end of a stream that has gone wrong, after which the connection is to be cut."""
        error = {"code": "server_error", "message": message}
        return self._begin() + self._event("response.failed", {"response": self.response("failed", error)})

    def response(self, status: str, error: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The response object as it is now."""
        running = status == "in_progress"
        reason = {"reason": "max_output_tokens"} if status == "incomplete" else None
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "completed_at": self._now() if status == "completed" else None,
            "status": status,
            "incomplete_details": reason,
            "model": self._request.model,
            "output": [] if running else [self._shown(item) for item in self._items],
            "error": error,
            **self._request.echo,
            "store": self._request.store,
            "background": False,
            "usage": None if running or error else self._counted(),
        }

    def _counted(self) -> dict[str, Any]:
        usage = self._usage
        return {
            "input_tokens": usage.prompt,
            "input_tokens_details": {"cached_tokens": usage.cached},
            "output_tokens": usage.completion,
            "output_tokens_details": {"reasoning_tokens": min(self._thoughts, usage.completion)},
            "total_tokens": usage.prompt + usage.completion,
        }

    def _begin(self) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        response = {"response": self.response("in_progress")}
        return self._event("response.created", response) + self._event("response.in_progress", response)

    def _last(self) -> bytes:
        return self._event(f"response.{self.status}", {"response": self.response(self.status)})

    def _delta(self, kind: str, text: str) -> bytes:
        before, item = b"", self._open
        if item is None or item.kind != kind:
            before, item = self._opened(_Item(kind, len(self._items), f"{_PREFIX[kind]}{self._new_id()}"))
        item.pieces.append(text)
        if not self._request.stream:
            return b""
        return before + self._piece(item, text)

    def _call(self, delta: ToolCallDelta) -> bytes:
        before, item = b"", self._calls.get(delta.index)
        if item is None:
            call = delta.id if delta.id.startswith("call_") else f"call_{delta.id or self._new_id()}"
            fresh = _Item("function_call", len(self._items), f"fc_{self._new_id()}", call, delta.name)
            before, item = self._opened(fresh)
            self._calls[delta.index] = item
        elif item is not self._open:
            self.failure = Failed(
                502, "the engine went back to a tool call it had finished", "protocol_error"
            )
            return self.failed(self.failure.message)
        item.pieces.append(delta.arguments)
        if not self._request.stream or not delta.arguments:
            return before
        return before + self._piece(item, delta.arguments)

    def _piece(self, item: _Item, text: str) -> bytes:
        """A delta, written around the encoded text: one comes for each token."""
        number = b"%d" % self._sequence
        self._sequence += 1
        return item.delta_head + number + b',"delta":' + _encode(text) + b"}\n\n"

    def _opened(self, item: _Item) -> tuple[bytes, _Item]:
        before = self._begin() + self._close()
        self._items.append(item)
        self._open = item
        fields = self._place(item)
        kind = self._kinds(item)[0]
        head = _encode({"type": kind, **fields, **({"logprobs": []} if item.kind == "message" else {})})
        item.delta_head = b"event: " + kind.encode() + b"\ndata: " + head[:-1] + b',"sequence_number":'
        if not self._request.stream:
            return b"", item
        shown = {"item": self._shown(item, "in_progress"), "output_index": item.index}
        before += self._event("response.output_item.added", shown)
        if item.kind == "message":
            part = _text_part("")
            before += self._event("response.content_part.added", {**fields, "part": part})
        elif item.kind == "reasoning" and self._request.summarised:
            part = {"type": "summary_text", "text": ""}
            before += self._event("response.reasoning_summary_part.added", {**fields, "part": part})
        return before, item

    def _close(self) -> bytes:
        item, self._open = self._open, None
        if item is None or not self._request.stream:
            return b""
        fields, text = self._place(item), item.text
        done, field = self._kinds(item)[1:]
        more: dict[str, Any] = {"logprobs": []} if item.kind == "message" else {}
        out = self._event(done, {**fields, field: text, **more})
        if item.kind == "message":
            out += self._event("response.content_part.done", {**fields, "part": _text_part(text)})
        elif item.kind == "reasoning" and self._request.summarised:
            part = {"type": "summary_text", "text": text}
            out += self._event("response.reasoning_summary_part.done", {**fields, "part": part})
        shown = {"item": self._shown(item), "output_index": item.index}
        return out + self._event("response.output_item.done", shown)

    def _kinds(self, item: _Item) -> tuple[str, str, str]:
        """Names of an item's delta and done events, and the field that its text has in the latter."""
        if item.kind == "reasoning" and self._request.summarised:
            stem, field = "response.reasoning_summary_text", "text"
        else:
            stem, field = _STEMS[item.kind]
        return f"{stem}.delta", f"{stem}.done", field

    def _place(self, item: _Item) -> dict[str, Any]:
        fields: dict[str, Any] = {"item_id": item.id, "output_index": item.index}
        if item.kind == "reasoning" and self._request.summarised:
            return {**fields, "summary_index": 0}
        return fields if item.kind == "function_call" else {**fields, "content_index": 0}

    def _shown(self, item: _Item, status: str = "") -> dict[str, Any]:
        running, text = status == "in_progress", item.text
        last = item is self._items[-1]
        shown: dict[str, Any] = {"id": item.id, "type": item.kind}
        shown["status"] = status or ("incomplete" if self._cut and last else "completed")
        if item.kind == "function_call":
            return {**shown, "call_id": item.call_id, "name": item.name, "arguments": text}
        if item.kind == "message":
            return {**shown, "role": "assistant", "content": [] if running else [_text_part(text)]}
        summary = [{"type": "summary_text", "text": text}] if self._request.summarised and not running else []
        content = [] if running or self._request.summarised else [{"type": "reasoning_text", "text": text}]
        sealed = {"encrypted_content": _sealed(text)} if self._request.sealed and not running else {}
        return {**shown, "summary": summary, "content": content, **sealed}

    def _event(self, name: str, fields: Mapping[str, Any]) -> bytes:
        if not self._request.stream:
            return b""
        data = _encode({"type": name, **fields, "sequence_number": self._sequence})
        self._sequence += 1
        return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"


_PREFIX = {"message": "msg_", "reasoning": "rs_"}
_STEMS = {
    "message": ("response.output_text", "text"),
    "reasoning": ("response.reasoning_text", "text"),
    "function_call": ("response.function_call_arguments", "arguments"),
}


def _text_part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _sealed(text: str) -> str:
    return SEAL + base64.b64encode(text.encode()).decode()
