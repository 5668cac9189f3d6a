"""Answers of ``/v1/responses``: neutral events → OpenAI's typed events, or one response object.

Every event has its ``sequence_number``; items (reasoning, message, function calls) come one after the other, each with its
``output_index``, and the part that an item's text stands in is told before and after it. A stream ends with
``response.completed``, ``response.incomplete`` (the limit was met) or ``response.failed``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from llamamgr.wire import golang
from llamamgr.wire.custom_tools import input_of
from llamamgr.wire.neutral import (
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
from llamamgr.wire.openai_chat import is_json
from llamamgr.wire.responses_items import engines_id
from llamamgr.wire.responses_request import ResponseRequest
from llamamgr.wire.seals import sealed

_encode = msgspec.json.encode
_SILENCE = 5  # seconds, while a prompt is read


class _Form(msgspec.Struct, frozen=True):
    """How the text of an item is told: the stems of its events' names and of those of its part, and its fields."""

    stem: str
    field: str = "text"
    part_stem: str = ""
    part_type: str = ""
    index: str = ""


_CALL = _Form("response.function_call_arguments", "arguments")
_INPUT = _Form("response.custom_tool_call_input", "input")
_TEXT = _Form(
    "response.output_text",
    part_stem="response.content_part",
    part_type="output_text",
    index="content_index",
)
_THOUGHT = _Form(
    "response.reasoning_text",
    part_stem="response.content_part",
    part_type="reasoning_text",
    index="content_index",
)
_SUMMARY = _Form(
    "response.reasoning_summary_text",
    part_stem="response.reasoning_summary_part",
    part_type="summary_text",
    index="summary_index",
)


class _Item:
    """One output item while it comes."""

    def __init__(
        self,
        kind: str,
        form: _Form,
        index: int,
        id: str,  # noqa: A002 - the field's name
        call_id: str = "",
        name: str = "",
    ) -> None:
        self.kind = kind
        self.form = form
        self.index = index
        self.id = id
        self.call_id = call_id
        self.name = name
        self.pieces: list[str] = []
        self.logprobs: list[dict[str, Any]] = []
        self.delta_head = b""

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def told(self) -> str:
        """The text as a client gets it: of a custom tool's arguments only what it is given."""
        return input_of(self.text) if self.form is _INPUT else self.text

    @property
    def place(self) -> dict[str, Any]:
        """The fields that say of which text an event is."""
        fields: dict[str, Any] = {"item_id": self.id, "output_index": self.index}
        return {**fields, self.form.index: 0} if self.form.index else fields

    def part(self, *, empty: bool = False) -> dict[str, Any]:
        """The part that the text stands in."""
        part: dict[str, Any] = {"type": self.form.part_type, "text": "" if empty else self.text}
        if self.form is not _TEXT:
            return part
        return {**part, "annotations": [], "logprobs": [] if empty else self.logprobs}


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
        self._created = self._completed = self._told_at = now()
        self._sequence = 0
        self._items: list[_Item] = []
        self._open: _Item | None = None
        self._calls: dict[int, _Item] = {}
        self._begun = False
        self._usage = Usage()
        self._thoughts = 0
        self._cut = False

    @property
    def is_fresh(self) -> bool:
        """While it has told nothing but that it has begun, so that it may begin with another engine."""
        return not (self._items or self.is_finished or self.failure)

    @property
    def message(self) -> Message:
        """What was answered, as a turn to go on from."""
        said = {
            kind: [item for item in self._items if item.kind == kind] for kind in ("message", "reasoning")
        }
        calls = tuple(
            # one that was cut off is no JSON, which no engine would go on from
            ToolCall(engines_id(item.call_id), item.name, item.text if is_json(item.text) else "{}", place)
            for place, item in enumerate(item for item in self._items if item.call_id)
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
            case TextDelta(text, logprobs):
                out = self._delta("message", text, logprobs)
            case ThinkingDelta(text=text):
                self._thoughts += 1  # the engine sends a piece for each token
                out = self._delta("reasoning", text)
            case ToolCallDelta():
                out = self._call(event)
            case PromptRead():
                out = self._begin() or self._again()
            case Finished():
                self.is_finished = True
                self._completed = self._now()
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
            "completed_at": self._completed if status == "completed" else None,
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
            # what a cache keeps costs nothing here, and is not counted
            "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": 0},
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

    def _again(self) -> bytes:
        """That it is in progress, once more: clients give up on streams in which nothing happens."""
        if self._now() - self._told_at < _SILENCE:
            return b""
        self._told_at = self._now()
        return self._event("response.in_progress", {"response": self.response("in_progress")})

    def _last(self) -> bytes:
        return self._event(f"response.{self.status}", {"response": self.response(self.status)})

    def _delta(self, kind: str, text: str, logprobs: tuple[Logprob, ...] = ()) -> bytes:
        before, item = b"", self._open
        if item is None or item.kind != kind:
            fresh = _Item(kind, self._form(kind), len(self._items), f"{_PREFIX[kind]}{self._new_id()}")
            before, item = self._opened(fresh)
        item.pieces.append(text)
        rows = [_row(one) for one in logprobs]
        item.logprobs += rows
        if not self._request.stream:
            return b""
        if rows:
            told = {**item.place, "logprobs": rows, "delta": text}
            return before + self._event(f"{item.form.stem}.delta", told)
        return before + self._piece(item, text)

    def _form(self, kind: str) -> _Form:
        if kind == "message":
            return _TEXT
        return _SUMMARY if self._request.summarised else _THOUGHT

    def _call(self, delta: ToolCallDelta) -> bytes:
        before, item = b"", self._calls.get(delta.index)
        if item is None:
            before, item = self._opened(self._new_call(delta))
            self._calls[delta.index] = item
        elif item is not self._open:
            self.failure = Failed(
                502, "the engine went back to a tool call it had finished", "protocol_error"
            )
            return self.failed(self.failure.message)
        item.pieces.append(delta.arguments)
        if not self._request.stream or not delta.arguments or item.form is _INPUT:
            return before  # what a custom tool is given can be told when it is whole
        return before + self._piece(item, delta.arguments)

    def _new_call(self, delta: ToolCallDelta) -> _Item:
        call = delta.id if delta.id.startswith("call_") else f"call_{delta.id or self._new_id()}"
        is_custom = delta.name in self._request.custom
        kind, form = ("custom_tool_call", _INPUT) if is_custom else ("function_call", _CALL)
        return _Item(kind, form, len(self._items), f"{_PREFIX[kind]}{self._new_id()}", call, delta.name)

    def _piece(self, item: _Item, text: str) -> bytes:
        """A delta, written around the encoded text: one comes for each token."""
        number = b"%d" % self._sequence
        self._sequence += 1
        return item.delta_head + number + b',"delta":' + _encode(text) + b"}\n\n"

    def _opened(self, item: _Item) -> tuple[bytes, _Item]:
        before = self._begin() + self._close()
        self._items.append(item)
        self._open = item
        if not self._request.stream:
            return b"", item
        kind = f"{item.form.stem}.delta"
        head = _encode({"type": kind, **item.place, **_logprobs(item)})
        item.delta_head = b"event: " + kind.encode() + b"\ndata: " + head[:-1] + b',"sequence_number":'
        shown = {"item": self._shown(item, "in_progress"), "output_index": item.index}
        before += self._event("response.output_item.added", shown)
        if item.form.part_stem:
            part = {**item.place, "part": item.part(empty=True)}
            before += self._event(f"{item.form.part_stem}.added", part)
        return before, item

    def _close(self) -> bytes:
        item, self._open = self._open, None
        if item is None:
            return b""
        out = b""
        if item.kind == "function_call" and not item.text and not self._cut:
            item.pieces = ["{}"]  # a call without arguments: clients read them as JSON
            out = self._piece(item, "{}") if self._request.stream else b""
        if not self._request.stream:
            return b""
        if item.form is _INPUT and item.told:
            out += self._piece(item, item.told)
        name = {"name": self._named(item)["name"]} if item.kind == "function_call" else {}
        done = {**item.place, **name, item.form.field: item.told, **_logprobs(item, item.logprobs)}
        out += self._event(f"{item.form.stem}.done", done)
        if item.form.part_stem:
            out += self._event(f"{item.form.part_stem}.done", {**item.place, "part": item.part()})
        shown = {"item": self._shown(item), "output_index": item.index}
        return out + self._event("response.output_item.done", shown)

    def _shown(self, item: _Item, status: str = "") -> dict[str, Any]:
        running = status == "in_progress"
        is_cut = item is self._open or (self._cut and item is self._items[-1])
        shown: dict[str, Any] = {"id": item.id, "type": item.kind}
        shown["status"] = status or ("incomplete" if is_cut else "completed")
        parts = [] if running else [item.part()]
        if item.call_id:
            return {**shown, "call_id": item.call_id, **self._named(item), item.form.field: item.told}
        if item.kind == "message":
            return {**shown, "role": "assistant", "content": parts}
        thought: dict[str, Any] = {"summary": [], "content": []}
        thought["summary" if item.form is _SUMMARY else "content"] = parts
        if self._request.sealed and not running:
            thought["encrypted_content"] = sealed(item.text)
        return {**shown, **thought}

    def _named(self, item: _Item) -> dict[str, str]:
        """A call's name as the client gave it, with its namespace if it has one."""
        space, name = self._request.spaces.get(item.name, ("", item.name))
        return {"name": name, "namespace": space} if space else {"name": name}

    def _event(self, name: str, fields: Mapping[str, Any]) -> bytes:
        if not self._request.stream:
            return b""
        data = _encode({"type": name, **fields, "sequence_number": self._sequence})
        self._sequence += 1
        return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"


_PREFIX = {"message": "msg_", "reasoning": "rs_", "function_call": "fc_", "custom_tool_call": "ctc_"}


def _logprobs(item: _Item, rows: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """The field that events of texts have, and no others."""
    return {"logprobs": rows} if item.form is _TEXT else {}


def _row(one: Logprob) -> dict[str, Any]:
    top = [{"token": other.token, "bytes": other.bytes, "logprob": other.logprob} for other in one.top]
    return {"token": one.token, "bytes": one.bytes, "logprob": one.logprob, "top_logprobs": top}
