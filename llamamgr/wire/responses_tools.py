"""The tools of ``POST /v1/responses``: which a model is offered, and under which names.

Tools that only OpenAI's servers run are left out, and told to be. A custom tool, which takes a text, is offered as a function of
one, and one of a namespace, as Codex has them of MCP servers, under both names. Facts: OpenAI's Responses API.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from llamamgr.wire import golang
from llamamgr.wire.custom_tools import INPUT, described
from llamamgr.wire.errors import DialectError
from llamamgr.wire.openai_tools import NOTHING
from llamamgr.wire.responses_items import within

# what an answer tells of a tool where the client said nothing
_DEFAULTS: dict[str, dict[str, Any]] = {
    "function": {"description": None, "parameters": None, "strict": None},
    "custom": {"description": None, "format": {"type": "text"}},
    "namespace": {"description": None, "tools": []},
}


class _CustomFormat(msgspec.Struct):
    syntax: str = ""
    definition: str = ""


class _Tool(msgspec.Struct):
    """Of type ``namespace`` it only groups ``tools``, which are the client's own."""

    type: str = ""
    name: str | None = None
    description: str | None = None
    parameters: msgspec.Raw = NOTHING
    strict: bool | None = None
    format: msgspec.Raw = NOTHING
    tools: list[_Tool] | None = None


class Offered(msgspec.Struct):
    """What a model is offered.

    ``tools`` are in the chat API's form; ``custom`` are the names of custom ones, ``plain`` of those in no namespace; ``spaces``
    maps the names of the others, as they are offered, to namespace and name. ``left_out`` are the types of what is not offered.
    """

    tools: list[msgspec.Raw] = []
    custom: set[str] = set()
    spaces: dict[str, tuple[str, str]] = {}
    plain: set[str] = set()
    left_out: list[str] = []


def read_tools(given: Sequence[msgspec.Raw]) -> Offered:
    """What of the tools that a client gives can be offered. ``DialectError`` 400 for one without a name, or ill-typed."""
    offered = Offered()
    for place, raw in enumerate(given):
        tool = golang.decode(bytes(raw), _Tool, "openai.ResponsesTool", {}, f"tools[{place}]")
        if tool.type == "namespace":
            for inner, one in enumerate(tool.tools or ()):
                _offer(one, f"tools[{place}].tools[{inner}]", offered, tool.name or "")
        else:
            _offer(tool, f"tools[{place}]", offered)
    return offered


def _offer(tool: _Tool, at: str, offered: Offered, space: str = "") -> None:
    """Add a tool in the chat API's form; one of a namespace under the names of both."""
    if tool.type not in ("function", "custom"):
        offered.left_out.append(tool.type or "unknown")
        return
    if not tool.name:
        raise DialectError(400, f"{at}.name is required", param=f"{at}.name")
    name = within(space, tool.name)
    if space:
        offered.spaces[name] = (space, tool.name)
    else:
        offered.plain.add(name)
    if tool.type == "custom":
        offered.custom.add(name)
    function = _custom(tool, at) if tool.type == "custom" else _function(tool)
    whole = {"type": "function", "function": {**function, "name": name}}
    offered.tools.append(msgspec.Raw(msgspec.json.encode(whole)))


def chosen(choice: msgspec.Raw, offered: Offered) -> msgspec.Raw:
    """A choice that names functions of namespaces, with the names that they are offered by."""
    raw = bytes(choice)
    if not offered.spaces or not raw.startswith(b"{"):
        return choice
    asked = msgspec.json.decode(raw, type=dict[str, Any])
    if isinstance(listed := asked.get("tools"), list):
        asked["tools"] = [_offered_name(one, offered) for one in listed]
    return msgspec.Raw(msgspec.json.encode(_offered_name(asked, offered)))


def _offered_name(named: Any, offered: Offered) -> Any:
    """By its namespace where it is told, else where only one has it and no tool that is in none."""
    if not isinstance(named, dict) or not isinstance(name := named.get("name"), str):
        return named
    if isinstance(space := named.get("namespace"), str):
        return {**named, "name": within(space, name)}
    alike = [full for full, (_, inner) in offered.spaces.items() if inner == name]
    return {**named, "name": alike[0]} if len(alike) == 1 and name not in offered.plain else named


def _function(tool: _Tool) -> dict[str, object]:
    function: dict[str, object] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    if bytes(tool.parameters) not in (b"", b"null"):
        function["parameters"] = tool.parameters
    return function


def _custom(tool: _Tool, at: str) -> dict[str, object]:
    """As a function of one text."""
    given = bytes(tool.format) or b"null"
    bound = golang.decode(given, _CustomFormat, "openai.ResponsesTool", {}, f"{at}.format")
    told = described(tool.description, bound.syntax, bound.definition)
    return {"name": tool.name, "description": told, "parameters": INPUT}


def shown(given: msgspec.Raw) -> list[dict[str, Any]]:
    """The tools as an answer tells them: those that may be offered, with defaults where the client said nothing."""
    tools = msgspec.json.decode(bytes(given) or b"[]", type=list[dict[str, msgspec.Raw] | None])
    return [{**_DEFAULTS[kind], **tool} for tool in tools if tool and (kind := _type(tool)) in _DEFAULTS]


def _type(tool: Mapping[str, msgspec.Raw]) -> str:
    return bytes(tool.get("type", NOTHING)).decode().strip('"')
