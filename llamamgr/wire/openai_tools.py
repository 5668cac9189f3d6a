"""Which tools a model is offered and whether it must call one: the forms that ``tool_choice`` has.

llama-server knows three words, ``auto``, ``none`` and ``required``, and with ``none`` still shows the tools to the
model, whose call then comes as text. A choice that names tools is made to it by offering no other ones.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from llamamgr.wire.errors import DialectError

NOTHING = msgspec.Raw(b"")
_NULL = b"null"
_NULL_FIELD = re.compile(rb'"(?:name|description|parameters|strict)"\s*+:\s*+null\b')
_PARAM = "tool_choice"
_NAMED = ("function", "custom")


class Offer(msgspec.Struct, frozen=True):
    """``tools`` are raw JSON objects; ``choice`` is empty (the model's own), ``auto`` or ``required``."""

    tools: tuple[msgspec.Raw, ...] = ()
    choice: str = ""


class _Function(msgspec.Struct):
    name: str | None = None


class _Tool(msgspec.Struct):
    """A tool as either of OpenAI's APIs writes it: its name in ``function``, or at the top."""

    type: str = "function"
    function: _Function = msgspec.field(default_factory=_Function)
    custom: _Function = msgspec.field(default_factory=_Function)
    name: str | None = None

    @property
    def named(self) -> str:
        return self.function.name or self.custom.name or self.name or ""


class _Allowed(msgspec.Struct):
    mode: str | None = None
    tools: list[_Tool] | None = None


class _Choice(_Allowed):
    type: str = ""
    function: _Function = msgspec.field(default_factory=_Function)
    custom: _Function = msgspec.field(default_factory=_Function)
    name: str | None = None
    allowed_tools: _Allowed | None = None


def choose(tools: Sequence[msgspec.Raw], choice: msgspec.Raw) -> Offer:
    """What to offer. ``DialectError`` 400 for a choice that is none, or that names a tool which is not there."""
    raw = bytes(choice)
    if raw in (b"", b"null"):
        return Offer(tuple(tools))
    if raw.startswith(b"{"):
        return _chosen(tools, _read(raw, _Choice))
    return _of_word(tools, _read(raw, object))


def name_of(tool: msgspec.Raw) -> str:
    """The name of a raw tool; empty when it has none. ``DialectError`` 400 when it is no tool."""
    read: _Tool = _read(bytes(tool), _Tool)
    return read.named


def has_null(tool: bytes) -> bool:
    """Whether a raw tool is null, or may have a field of its function that is; schemas are full of other nulls."""
    return _NULL in tool and (tool == _NULL or _NULL_FIELD.search(tool) is not None)


def without_nulls(tool: msgspec.Raw) -> msgspec.Raw:
    """``tool`` without those fields of its function that are null: they say nothing, and the engine refuses them.

    The same object where there are none. ``DialectError`` 400 when it is no tool.
    """
    if not has_null(bytes(tool)):
        return tool
    fields = _read(bytes(tool), dict[str, msgspec.Raw])
    function = fields.get("function", NOTHING)
    if not bytes(function).startswith(b"{"):
        return tool
    given = _read(bytes(function), dict[str, msgspec.Raw])
    kept = {name: value for name, value in given.items() if bytes(value) != _NULL}
    return tool if len(kept) == len(given) else msgspec.Raw(msgspec.json.encode({**fields, "function": kept}))


def _of_word(tools: Sequence[msgspec.Raw], word: Any) -> Offer:
    if word == "none":
        return Offer()
    if word == "auto":
        return Offer(tuple(tools), "auto")
    if word in ("required", "any"):
        if not tools:
            raise DialectError(400, f"tool_choice is {word} but no tools are given", param=_PARAM)
        return Offer(tuple(tools), "required")
    shown = msgspec.json.encode(word).decode()[:80]
    raise DialectError(
        400,
        f"Invalid value for 'tool_choice': {shown}. Supported are 'none', 'auto', 'required', and an object that names a function",
        param=_PARAM,
    )


def _chosen(tools: Sequence[msgspec.Raw], choice: _Choice) -> Offer:
    if choice.type in _NAMED:
        return Offer(
            _named(tools, [choice.function.name or choice.custom.name or choice.name or ""]), "required"
        )
    if choice.type == "allowed_tools":
        allowed = choice.allowed_tools or choice
        return _of_word(_allowed(tools, allowed.tools or ()), allowed.mode or "auto")
    return _of_word(tools, choice.type)


def _allowed(tools: Sequence[msgspec.Raw], listed: Sequence[_Tool]) -> tuple[msgspec.Raw, ...]:
    """Those that are ``listed``; what has no name was not offered in the first place, and may be listed in vain."""
    functions = [tool for tool in listed if tool.type in _NAMED]
    if listed and not functions:
        return ()
    return _named(tools, [tool.named for tool in functions])


def _named(tools: Sequence[msgspec.Raw], names: Sequence[str]) -> tuple[msgspec.Raw, ...]:
    offered = [(name_of(tool), tool) for tool in tools]
    missing = [name for name in names if name not in {known for known, _ in offered}]
    if missing or not names:
        name = missing[0] if missing else ""
        raise DialectError(400, f"Tool choice '{name}' not found in 'tools'", param=_PARAM)
    return tuple(tool for known, tool in offered if known in names)


def _read(raw: bytes, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise DialectError(400, f"invalid tool or tool_choice: {error}", param="tools") from None
