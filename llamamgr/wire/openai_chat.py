"""``/v1/chat/completions``: what is read of a request, and what is put right before it goes to the engine.

llama-server speaks this dialect, so all bytes pass but for the fields that it reads otherwise than OpenAI does:

==================  ===========================================================================================
tool_choice         an object becomes ``required`` and the tools it names; ``none`` takes the tools away
response_format     ``{"type": "json_schema", "schema": …}``, which it ignores, becomes the form it knows
reasoning_effort    refused when it is no effort; ``reasoning.effort`` stands in for it
reasoning           of earlier turns becomes ``reasoning_content``
media               given by an address are refused or enclosed, never fetched by the engine
==================  ===========================================================================================

A request that needs none of this passes byte for byte. Fields nobody here knows always pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from llamamgr.wire import golang, images
from llamamgr.wire.errors import DialectError
from llamamgr.wire.openai_tools import NOTHING, choose

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
    """A request that is passed on. ``body`` is what the engine gets, ``addresses`` media to be fetched for it."""

    model: str
    stream: bool = False
    body: bytes = b""
    has_media: bool = False
    addresses: tuple[str, ...] = ()


class _Call(msgspec.Struct):
    function: dict[str, Any] | None = None


class _Turn(msgspec.Struct):
    content: str | list[dict[str, Any]] | None = None
    reasoning: Any = None
    tool_calls: list[_Call] | None = None


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
    _check_arguments(chat.messages)
    changed = _changes(chat)
    media = any(map(images.values_of, parts))
    return Passing(chat.model, bool(chat.stream), _with(sound, changed), media, addresses)


def _is_plain(chat: Wire) -> bool:
    """True for what most requests are: texts, and nothing that the engine reads otherwise."""
    if chat.tool_choice is not NOTHING or chat.response_format is not None:
        return False
    if chat.reasoning_effort is not None or chat.reasoning is not NOTHING:
        return False
    for turn in chat.messages or ():
        if not isinstance(turn.content, str) or turn.reasoning is not None or turn.tool_calls:
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


def _changes(chat: Wire) -> dict[str, Any]:
    """Fields to be replaced in the body; None takes one away."""
    changed: dict[str, Any] = {}
    if bytes(chat.tool_choice) not in (b"", b"null", b'"auto"'):
        offer = choose(chat.tools or (), chat.tool_choice)
        changed["tools"] = offer.tools or None
        changed["tool_choice"] = offer.choice or None
    if chat.response_format is not None:
        spelled = response_format(chat.response_format)
        if spelled is not chat.response_format:
            changed["response_format"] = spelled
    asked = chat.reasoning_effort
    if asked is None and bytes(chat.reasoning).startswith(b"{"):
        asked = golang.decode(bytes(chat.reasoning), _Reasoning, "openai.Reasoning", {}, "reasoning").effort
    if asked and (asked != effort(asked) or chat.reasoning_effort is None):
        changed["reasoning_effort"] = effort(asked)
    if any(isinstance(turn.reasoning, str) for turn in chat.messages or ()):
        changed["messages"] = _RENAME
    return changed


_RENAME = object()


def _with(body: bytes, changed: dict[str, Any]) -> bytes:
    if not changed:
        return body
    top: dict[str, Any] = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    for field, value in changed.items():
        if value is _RENAME:
            top[field] = [
                _renamed(turn) for turn in msgspec.json.decode(top[field], type=list[dict[str, msgspec.Raw]])
            ]
        elif value is None:
            top.pop(field, None)
        else:
            top[field] = value
    return msgspec.json.encode(top)


def _renamed(turn: dict[str, msgspec.Raw]) -> dict[str, msgspec.Raw]:
    thought = turn.pop("reasoning", NOTHING)
    return turn if bytes(thought) in (b"", b"null") else {"reasoning_content": thought, **turn}


def _check_arguments(turns: list[_Turn]) -> None:
    """Arguments of earlier calls must be JSON: the engine has a 500 for others."""
    for place, turn in enumerate(turns):
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
