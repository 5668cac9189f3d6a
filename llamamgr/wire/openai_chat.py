"""``/v1/chat/completions``: what is read of a request, and what is put right before it goes to the engine.

llama-server speaks this dialect, so all bytes pass but for the fields that it reads otherwise than OpenAI does:

==================  ===========================================================================================
tool_choice         an object becomes ``required`` and the tools it names; ``none`` takes the tools away
tools               lose fields of their functions that are null
tool_calls          of earlier turns without arguments get an empty object
response_format     ``{"type": "json_schema", "schema": …}``, which it ignores, becomes the form it knows
reasoning_effort    refused when it is no effort; ``reasoning.effort`` stands in for it
reasoning           of earlier turns becomes ``reasoning_content``
media               given by an address are refused or enclosed, never fetched by the engine
functions, …        and other forms that it does not know: ``openai_forms``
stop                loses empty texts, which would end an answer before it begins
==================  ===========================================================================================

A request that needs none of this passes byte for byte. Fields nobody here knows always pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from llamamgr.wire import golang, images
from llamamgr.wire.errors import DialectError
from llamamgr.wire.openai_forms import (
    AS_IT_COMES,
    Shape,
    choice_of,
    is_bare,
    is_plain,
    offered,
    respelt,
    tools_of,
)
from llamamgr.wire.openai_tools import NOTHING, choose, has_null, without_nulls

_MOST_LOGPROBS = 20
_CUSTOM = b'"custom"'

# Ollama's words → those that templates know (source: openai/openai.go reasoning_effort)
EFFORTS = {
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "max",
    "ultra": "max",
    "max": "max",
    "none": "none",
}


class Passing(msgspec.Struct, frozen=True):
    """A request that is passed on.

    ``body`` is what the engine gets, ``addresses`` media to be fetched for it; ``shape`` is what the client expects to get.
    ``effort`` is the field that says how hard the model is to think, if one does.
    """

    model: str
    stream: bool = False
    body: bytes = b""
    has_media: bool = False
    addresses: tuple[str, ...] = ()
    shape: Shape = AS_IT_COMES
    effort: str = ""


class _Call(msgspec.Struct):
    type: str | None = None
    function: dict[str, Any] | None = None


class _Turn(msgspec.Struct):
    content: str | list[dict[str, Any]] | None = None
    reasoning: Any = None
    reasoning_content: Any = None
    refusal: Any = None
    audio: Any = None
    tool_calls: list[_Call] | None = None
    function_call: Any = None

    @property
    def is_else(self) -> bool:
        """Of an answer: thoughts, a refusal or sounds instead of a text."""
        return any((self.reasoning, self.reasoning_content, self.refusal, self.audio))


class _Reasoning(msgspec.Struct):
    effort: str | None = None


class Wire(msgspec.Struct):
    model: str | None = None
    stream: bool | None = None
    messages: list[_Turn] | None = None
    tools: list[msgspec.Raw] | None = None
    tool_choice: msgspec.Raw = NOTHING
    response_format: dict[str, Any] | None = None
    reasoning_effort: str | None = None
    reasoning: msgspec.Raw = NOTHING
    functions: list[msgspec.Raw] | None = None
    function_call: msgspec.Raw = NOTHING
    logprobs: msgspec.Raw = NOTHING
    top_logprobs: msgspec.Raw = NOTHING
    stop: msgspec.Raw = NOTHING
    modalities: list[str] | None = None
    web_search_options: msgspec.Raw = NOTHING


def prepare(body: bytes, *, fetching: bool = False) -> Passing:
    """What a chat request says of itself, and what of it the engine gets.

    ``DialectError`` 400 for what is missing or cannot be asked. Addresses of media are refused unless
    ``fetching``, which leaves those of ``http`` to be enclosed by ``enclosed``.
    """
    if not body.strip():
        raise DialectError(400, "EOF")
    chat, sound = golang.decode_sound(body, Wire, "openai.ChatCompletionRequest", {})
    if not chat.messages:
        raise DialectError(400, "[] is too short - 'messages'", param="messages")
    if chat.model and _is_plain(chat):
        return Passing(chat.model, bool(chat.stream), sound)
    parts = [part for turn in chat.messages if isinstance(turn.content, list) for part in turn.content]
    addresses = images.addresses(parts) if parts else ()
    if addresses and any(not fetching or not images.is_fetchable(address) for address in addresses):
        raise DialectError(400, images.NO_ADDRESSES, param="messages")
    if not chat.model:
        raise DialectError(400, "model is required", param="model")
    _check(chat)
    _check_turns(chat.messages)
    changed, shape = _changes(chat)
    media = any(map(images.values_of, parts))
    thinks = changed.get("reasoning_effort", chat.reasoning_effort) not in (None, "", "none")
    said_in = _effort_field(chat) if thinks else ""
    return Passing(chat.model, bool(chat.stream), _with(sound, changed), media, addresses, shape, said_in)


def _is_plain(chat: Wire) -> bool:
    """True for what most requests are: texts, and nothing that the engine reads otherwise."""
    if chat.tool_choice is not NOTHING or chat.response_format is not None:
        return False
    if chat.reasoning_effort is not None or chat.reasoning is not NOTHING:
        return False
    if chat.functions is not None or chat.logprobs is not NOTHING:
        return False
    if chat.stop is not NOTHING and b'""' in bytes(chat.stop):
        return False
    if chat.modalities is not None or chat.web_search_options is not NOTHING:
        return False
    if any(_CUSTOM in (raw := bytes(tool)) or has_null(raw) for tool in chat.tools or ()):
        return False
    for turn in chat.messages or ():
        if not isinstance(turn.content, str) or turn.reasoning is not None or turn.tool_calls:
            return False
        if turn.function_call is not None:
            return False
    return True


def enclosed(body: bytes, fetched: Mapping[str, str]) -> bytes:
    """``body`` with each address in ``fetched`` replaced by the ``data:`` address of what was fetched there."""
    top = msgspec.json.decode(body)
    for turn in top["messages"]:
        if isinstance(turn.get("content"), list):
            turn["content"] = [images.enclose(part, fetched) for part in turn["content"]]
    return msgspec.json.encode(top)


def effort(word: str, param: str = "reasoning_effort") -> str:
    """A reasoning effort as templates know it; ``DialectError`` 400 for what is none, which ``param`` was."""
    known = EFFORTS.get(word)
    if known is None:
        shown = golang.quote(word.encode())
        raise DialectError(
            400,
            f'invalid reasoning value: {shown} (must be "minimal", "low", "medium", "high", "xhigh", "ultra", "max", or "none")',
            param=param,
        )
    return known


def response_format(asked: dict[str, Any]) -> dict[str, Any]:
    """A ``response_format`` in the spelling that the engine obeys; ``DialectError`` 400 for a schema that is missing."""
    if asked.get("type") != "json_schema":
        return asked
    given = asked.get("json_schema")
    inner = given if isinstance(given, dict) else {}
    schema = inner.get("schema", asked.get("schema"))
    if schema is None and ({"type", "properties", "$ref", "anyOf"} & inner.keys()):
        return {"type": "json_schema", "json_schema": {"name": "answer", "schema": inner}}
    if not isinstance(schema, dict):
        raise DialectError(
            400, "Missing required parameter: 'response_format.json_schema.schema'.", param="response_format"
        )
    if "schema" in inner:
        return asked
    return {"type": "json_schema", "json_schema": {"name": "answer", **inner, "schema": schema}}


def _check(chat: Wire) -> None:
    most = bytes(chat.top_logprobs)
    if most.isdigit() and int(most) > _MOST_LOGPROBS:
        raise DialectError(400, f"top_logprobs must be between 0 and {_MOST_LOGPROBS}", param="top_logprobs")
    if "audio" in (chat.modalities or ()):
        raise DialectError(400, 'audio is not generated here: modalities may be ["text"]', param="modalities")
    if bytes(chat.web_search_options) not in (b"", b"null"):
        raise DialectError(
            400, "nothing is searched for here; leave web_search_options out", param="web_search_options"
        )


def _changes(chat: Wire) -> tuple[dict[str, Any], Shape]:
    """Fields to be replaced in the body, None takes one away; and what the client expects of the answer."""
    changed, shape = _tools(chat)
    if bytes(chat.logprobs) == b"true" and bytes(chat.top_logprobs) in (b"", b"null", b"0"):
        changed["top_logprobs"] = 1
        shape = msgspec.structs.replace(shape, without_rivals=True)
    if b'""' in bytes(chat.stop):
        changed["stop"] = _without_empty(chat.stop)
    if chat.response_format is not None:
        spelled = response_format(chat.response_format)
        if spelled is not chat.response_format:
            changed["response_format"] = spelled
    asked = chat.reasoning_effort
    if asked is None and bytes(chat.reasoning).startswith(b"{"):
        asked = golang.decode(bytes(chat.reasoning), _Reasoning, "openai.Reasoning", {}, "reasoning").effort
    known = effort(asked, _effort_field(chat)) if asked else None
    if known and (asked != known or chat.reasoning_effort is None):
        changed["reasoning_effort"] = known
    if not all(map(_is_known, chat.messages or ())):
        changed["messages"] = _RESPELL
    return changed, shape


def _effort_field(chat: Wire) -> str:
    return "reasoning.effort" if chat.reasoning_effort is None else "reasoning_effort"


_RESPELL = object()


def _tools(chat: Wire) -> tuple[dict[str, Any], Shape]:
    """The same of the tools and of which of them is to be called."""
    changed: dict[str, Any] = {}
    given, custom = offered(chat.tools or ())
    choice, is_old = chat.tool_choice, bool(chat.functions) and not given
    if is_old:
        given, choice = tools_of(chat.functions or ()), choice_of(chat.function_call)
        changed |= {"functions": None, "function_call": None, "parallel_tool_calls": False}
    tools = list(map(without_nulls, given))
    if is_old or custom or any(kept is not tool for kept, tool in zip(tools, given, strict=True)):
        changed["tools"] = tools
    if bytes(choice) not in (b"", b"null", b'"auto"'):
        offer = choose(tools, choice)
        changed |= {"tools": offer.tools or None, "tool_choice": offer.choice or None}
    return changed, Shape(is_old, custom) if is_old or custom else AS_IT_COMES


def _is_known(turn: _Turn) -> bool:
    """True for a turn in a form that the engine reads."""
    if isinstance(turn.reasoning, str) or turn.function_call is not None:
        return False
    if any(call.type == "custom" or is_bare(call.function) for call in turn.tool_calls or ()):
        return False
    return not isinstance(turn.content, list) or all(map(is_plain, turn.content))


def _without_empty(stop: msgspec.Raw) -> list[Any] | None:
    given = msgspec.json.decode(bytes(stop))
    return [text for text in given if text != ""] or None if isinstance(given, list) else None


def _with(body: bytes, changed: dict[str, Any]) -> bytes:
    if not changed:
        return body
    top: dict[str, Any] = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    for field, value in changed.items():
        if value is _RESPELL:
            top[field] = respelt(msgspec.json.decode(top[field], type=list[dict[str, Any]]))
        elif value is None:
            top.pop(field, None)
        else:
            top[field] = value
    return msgspec.json.encode(top)


def _check_turns(turns: list[_Turn]) -> None:
    """A turn says something or calls something. Arguments of earlier calls must be JSON: the engine has a 500 for others."""
    for place, turn in enumerate(turns):
        if turn.content is None and not (turn.tool_calls or turn.function_call or turn.is_else):
            raise DialectError(400, "invalid message content type: <nil>", param=f"messages[{place}].content")
        for call in turn.tool_calls or ():
            arguments = (call.function or {}).get("arguments")
            if isinstance(arguments, str) and arguments.strip() and not is_json(arguments):
                raise DialectError(
                    400,
                    f"the arguments of a tool call in messages[{place}] are no JSON",
                    param=f"messages[{place}].tool_calls",
                )


def is_json(text: str) -> bool:
    """True for one whole JSON value."""
    try:
        msgspec.json.decode(text.encode(), type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return False
    return True
