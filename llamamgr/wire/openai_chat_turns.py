"""``/v1/chat/completions`` → a neutral chat, for models whose prompt is made here (by a Go template).

What is read is what ``openai_chat.prepare`` has put right. Fields that are not OpenAI's go on to the engine as sampling.
"""

from __future__ import annotations

from typing import Any

import msgspec

from llamamgr.wire import golang, images
from llamamgr.wire.errors import DialectError
from llamamgr.wire.neutral import (
    ChatRequest,
    JsonObject,
    JsonSchema,
    MediaPart,
    Message,
    Part,
    ResponseFormat,
    TextPart,
    Think,
    ToolCall,
)
from llamamgr.wire.openai_tools import NOTHING

_READ = frozenset(
    {
        *("model", "messages", "stream", "stream_options", "tools", "tool_choice", "response_format"),
        *("reasoning", "chat_template_kwargs", "logprobs", "top_logprobs", "n"),
        # OpenAI's, and nothing to an engine
        *("user", "store", "metadata", "service_tier", "safety_identifier", "prompt_cache_key", "modalities"),
    }
)
_MOST_LOGPROBS = 20


class TranslatedChat(msgspec.Struct, frozen=True):
    """``chat`` as it goes on; ``include_usage``: a stream is to end with what it cost."""

    chat: ChatRequest
    include_usage: bool = False


class _Part(msgspec.Struct):
    type: str = "text"
    text: str | None = None
    refusal: str | None = None
    image_url: dict[str, Any] | str | None = None
    input_audio: dict[str, Any] | str | None = None


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: msgspec.Raw = NOTHING


class _Call(msgspec.Struct):
    id: str | None = None
    function: _Function = msgspec.field(default_factory=_Function)


class _Turn(msgspec.Struct):
    role: str | None = None
    content: str | list[_Part] | None = None
    reasoning_content: str | None = None
    tool_calls: list[_Call] | None = None
    tool_call_id: str | None = None
    name: str | None = None


class _Named(msgspec.Struct):
    schema: msgspec.Raw = NOTHING


class _Format(msgspec.Struct):
    type: str = "text"
    schema: msgspec.Raw = NOTHING
    json_schema: _Named = msgspec.field(default_factory=_Named)


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _Arguments(msgspec.Struct):
    """What a client tells a Jinja template about thinking; a Go template is told the same."""

    enable_thinking: bool | None = None
    reasoning_effort: str | None = None


class _Wire(msgspec.Struct):
    messages: list[_Turn]
    tools: list[msgspec.Raw] | None = None
    tool_choice: str | None = None
    response_format: _Format | None = None
    reasoning_effort: str | None = None
    chat_template_kwargs: _Arguments | None = None
    stream_options: _StreamOptions | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    n: int | None = None


def parse(body: bytes) -> TranslatedChat:
    """``DialectError`` 400 for what cannot be asked."""
    wire, sound = golang.decode_sound(body, _Wire, "openai.ChatCompletionRequest", {})
    if wire.n is not None and wire.n != 1:
        raise DialectError(
            400, "n other than 1 is not served by a Go template; create the model without TEMPLATE", param="n"
        )
    top = wire.top_logprobs or 0
    if not 0 <= top <= _MOST_LOGPROBS:
        raise DialectError(400, f"top_logprobs must be between 0 and {_MOST_LOGPROBS}", param="top_logprobs")
    fields = msgspec.json.decode(sound, type=dict[str, msgspec.Raw])
    chat = ChatRequest(
        messages=_turns(wire.messages),
        tools=tuple(wire.tools or ()),
        tool_choice=wire.tool_choice or "",
        sampling={name: value for name, value in fields.items() if name not in _READ},
        response_format=_format(wire.response_format),
        think=_think(wire),
        logprobs=bool(wire.logprobs),
        top_logprobs=top if wire.logprobs else 0,
    )
    return TranslatedChat(chat, bool(wire.stream_options and wire.stream_options.include_usage))


def _turns(given: list[_Turn]) -> tuple[Message, ...]:
    """A tool's result names its tool, as templates want it, by the call that it answers."""
    names: dict[str, str] = {}
    turns = []
    for place, turn in enumerate(given):
        message = _message(turn, f"messages[{place}]")
        names |= {call.id: call.name for call in message.tool_calls}
        if message.role == "tool" and not message.tool_name:
            message = msgspec.structs.replace(message, tool_name=names.get(message.tool_call_id, ""))
        turns.append(message)
    return tuple(turns)


def _message(turn: _Turn, where: str) -> Message:
    calls = enumerate(turn.tool_calls or ())
    given = () if isinstance(turn.content, str) else tuple(_part(part, where) for part in turn.content or ())
    has_media = any(isinstance(part, MediaPart) for part in given)
    return Message(
        role="system" if turn.role == "developer" else turn.role or "user",
        content=turn.content
        if isinstance(turn.content, str)
        else "\n".join(part.text for part in given if isinstance(part, TextPart) and not has_media),
        parts=given if has_media else (),
        thinking=turn.reasoning_content or "",
        tool_calls=tuple(_call(call, place) for place, call in calls),
        tool_name=turn.name or "" if turn.role == "tool" else "",
        tool_call_id=turn.tool_call_id or "",
    )


def _part(part: _Part, where: str) -> Part:
    if part.type in ("image_url", "input_audio"):
        data = images.enclosed_in(part.image_url if part.type == "image_url" else part.input_audio)
        if not data:
            raise DialectError(400, f"{where}: {part.type} without data", param=where)
        return MediaPart(data)
    if part.type not in ("text", "refusal", "input_text", "output_text"):
        raise DialectError(400, f"{where}: content of type {part.type!r} is not served", param=where)
    return TextPart(part.text or part.refusal or "")


def _call(call: _Call, place: int) -> ToolCall:
    """Arguments come as text; some clients send the object itself."""
    given = bytes(call.function.arguments)
    arguments = msgspec.json.decode(given, type=str) if given.startswith(b'"') else given.decode()
    return ToolCall(call.id or "", call.function.name or "", arguments or "{}", place)


def _format(asked: _Format | None) -> ResponseFormat | None:
    if asked is None or asked.type == "text":
        return None
    named = asked.json_schema.schema if asked.type == "json_schema" else asked.schema
    if bytes(named).startswith(b"{"):
        return JsonSchema(named)
    if asked.type == "json_object":
        return JsonObject()
    raise DialectError(
        400, "response_format must be of type text, json_object or json_schema", param="response_format"
    )


def _think(wire: _Wire) -> Think:
    told: Any = wire.chat_template_kwargs or _Arguments()
    effort = wire.reasoning_effort or told.reasoning_effort
    if effort == "none" or told.enable_thinking is False:
        return False
    return effort or told.enable_thinking
