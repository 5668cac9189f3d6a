"""What a program says to a private server, and what it gets: OpenAI's shapes in, one plain ``Reply`` out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from llamamgr.core.errors import UsageError
from llamamgr.wire import neutral
from llamamgr.wire.neutral import ChatRequest, Event, FinishReason, Timings, ToolCall, Usage

Messages: TypeAlias = str | Sequence[Mapping[str, Any]]

# Written by us into every request: a stream of one answer, whatever the caller wants to see of it.
_OURS = frozenset({"messages", "stream", "stream_options"})


class Reply(msgspec.Struct, frozen=True):
    """A whole answer. ``usage`` is tokens, ``timings`` milliseconds; both are zeros when llama-cli answered, which tells none."""

    text: str
    thinking: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: FinishReason = "stop"
    usage: Usage = Usage()
    timings: Timings = Timings()

    def __str__(self) -> str:
        return self.text


def chat_request(messages: Messages, parameters: Mapping[str, Any]) -> ChatRequest:
    """The request of a ``chat`` call; ``UsageError`` for what makes no request.

    Of ``parameters`` ``tools``, ``tool_choice``, ``response_format`` and ``think`` are read here; all others go to the engine by
    their own names (``temperature``, ``max_tokens``, ``seed``, ``stop``, ``grammar`` …).
    """
    rest = dict(parameters)
    if clashing := sorted(_OURS & rest.keys()) or (["n"] if rest.get("n", 1) != 1 else []):
        raise UsageError(
            f"{', '.join(clashing)}: not a parameter of this call",
            "chat() gives one answer, stream() streams it",
        )
    try:
        return ChatRequest(
            messages=_messages(messages),
            tools=tuple(_raw(tool) for tool in rest.pop("tools", None) or ()),
            tool_choice=rest.pop("tool_choice", None) or "",
            response_format=_response_format(rest.pop("response_format", None)),
            think=rest.pop("think", None),
            sampling=msgspec.to_builtins(rest),
        )
    except (TypeError, msgspec.MsgspecError) as error:
        raise UsageError(
            f"no valid request: {error}", "messages and parameters must be plain JSON values"
        ) from None


def reply_of(events: Iterable[Event]) -> Reply:
    """The answer that a finished stream of events told."""
    text, thinking, finished = [], [], neutral.Finished("stop")
    calls: dict[int, ToolCall] = {}
    for event in events:
        match event:
            case neutral.TextDelta():
                text.append(event.text)
            case neutral.ThinkingDelta():
                thinking.append(event.text)
            case neutral.ToolCallDelta(index):
                calls[index] = _extended(calls.get(index, ToolCall("", "", "", index)), event)
            case neutral.Finished():
                finished = event
    return Reply(
        "".join(text),
        "".join(thinking),
        tuple(call for _, call in sorted(calls.items())),
        finished.reason,
        finished.usage,
        finished.timings,
    )


def _extended(call: ToolCall, delta: neutral.ToolCallDelta) -> ToolCall:
    return ToolCall(
        call.id or delta.id, call.name or delta.name, call.arguments + delta.arguments, delta.index
    )


def _messages(messages: object) -> tuple[msgspec.Raw, ...]:
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    turns = list(messages) if isinstance(messages, Sequence) else []
    if not turns or not all(isinstance(turn, Mapping) and "role" in turn for turn in turns):
        raise TypeError("messages must be a text or a list of {'role': …, 'content': …}")
    return tuple(map(_raw, turns))


def _raw(value: Mapping[str, Any]) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


def _response_format(value: Mapping[str, Any] | None) -> neutral.ResponseFormat | None:
    """Any of the spellings in use; llama-server would leave some of them unconstrained without a word."""
    if value is None or value.get("type") == "text":
        return None
    wrapped = value.get("json_schema") or {}
    schema = wrapped.get("schema") or value.get("schema")
    match value.get("type"):
        case "json_object" | "json_schema" if schema:
            return neutral.JsonSchema(_raw(schema))
        case "json_object":
            return neutral.JsonObject()
    raise TypeError("response_format must be of type json_object, or json_schema with a schema")
