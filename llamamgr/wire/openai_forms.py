"""Forms of OpenAI's chats that llama-server does not know, made into those that it does, and its answers made into theirs.

======================  ===============================================================================================
functions               what tools were called before there were any, with ``function_call``, and turns of role ``function``
custom tools            take a text; each is offered as a function of one text
calls without any       arguments, be they an empty text or null: they get an empty object
probabilities alone     without ``top_logprobs`` there are no rivals; the engine tells twenty, and none at all of 0
refusals, text files    in the content of turns: they are texts
images                  as a bare text instead of an object, which Ollama takes, too
======================  ===============================================================================================
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from llamamgr.wire.custom_tools import INPUT, arguments_of, described, input_of
from llamamgr.wire.errors import DialectError
from llamamgr.wire.files import text_of_file

_encode = msgspec.json.encode
_NOTHING = msgspec.Raw(b"")
# frames without these pass as they are: none but such tell of calls, probabilities or an end
_TELLING = (b'"tool_calls"', b'"logprobs"', b'"finish_reason":"')


class Shape(msgspec.Struct, frozen=True):
    """What a client expects of an answer: calls of ``functions`` or ``custom`` tools, and probabilities without rivals."""

    functions: bool = False
    custom: frozenset[str] = frozenset()
    without_rivals: bool = False


AS_IT_COMES = Shape()


class _Grammar(msgspec.Struct):
    syntax: str = ""
    definition: str = ""


class _Format(msgspec.Struct):
    grammar: _Grammar = msgspec.field(default_factory=_Grammar)


class _Custom(msgspec.Struct):
    name: str = ""
    description: str | None = None
    format: _Format = msgspec.field(default_factory=_Format)


class _Tool(msgspec.Struct):
    type: str = ""
    custom: _Custom = msgspec.field(default_factory=_Custom)


class _Named(msgspec.Struct):
    name: str = ""


# -- requests


def tools_of(functions: Sequence[msgspec.Raw]) -> list[msgspec.Raw]:
    """``functions`` as tools."""
    return [msgspec.Raw(_encode({"type": "function", "function": function})) for function in functions]


def choice_of(function_call: msgspec.Raw) -> msgspec.Raw:
    """``function_call`` as a ``tool_choice``."""
    if not bytes(function_call).startswith(b"{"):
        return function_call
    name = _read(function_call, _Named, "function_call").name
    return msgspec.Raw(_encode({"type": "function", "function": {"name": name}}))


def offered(tools: Sequence[msgspec.Raw]) -> tuple[list[msgspec.Raw], frozenset[str]]:
    """``tools`` as functions, and the names of those that were custom tools."""
    found, names = [], set()
    for place, raw in enumerate(tools):
        tool = _read(raw, _Tool, f"tools[{place}]")
        if tool.type != "custom":
            found.append(raw)
            continue
        if not tool.custom.name:
            where = f"tools[{place}].custom.name"
            raise DialectError(400, f"Missing required parameter: '{where}'.", param=where)
        names.add(tool.custom.name)
        found.append(_function(tool.custom))
    return found, frozenset(names)


def _function(custom: _Custom) -> msgspec.Raw:
    bound = custom.format.grammar
    told = described(custom.description, bound.syntax, bound.definition)
    function = {"name": custom.name, "description": told, "parameters": INPUT}
    return msgspec.Raw(_encode({"type": "function", "function": function}))


def is_plain(part: Mapping[str, Any]) -> bool:
    """True for a part of content that the engine takes as it is."""
    return part.get("type") not in ("refusal", "file") and not isinstance(part.get("image_url"), str)


def is_bare(function: Any) -> bool:
    """True for a called function without arguments: an empty text, null or nothing at all, none of which the engine reads."""
    arguments = function.get("arguments") if isinstance(function, dict) else {}
    return arguments is None or (isinstance(arguments, str) and not arguments.strip())


def respelt(turns: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Turns in the form that the engine reads."""
    found: list[dict[str, Any]] = []
    calls: dict[str, str] = {}
    for place, turn in enumerate(turns):
        fresh = dict(turn)
        thought, called = fresh.pop("reasoning", None), fresh.pop("function_call", None)
        if thought is not None:
            fresh = {"reasoning_content": thought, **fresh}
        if isinstance(called, dict):
            id = f"call_{place}"  # noqa: A001 - the field's name
            calls[str(called.get("name"))] = id
            fresh["tool_calls"] = [{"id": id, "type": "function", "function": called}]
        if fresh.get("role") == "function":
            fresh |= {"role": "tool", "tool_call_id": calls.get(str(fresh.get("name")), f"call_{place - 1}")}
        if isinstance(fresh.get("tool_calls"), list):
            fresh["tool_calls"] = [_call(call) for call in fresh["tool_calls"]]
        if isinstance(fresh.get("content"), list):
            where = f"messages[{place}].content"
            fresh["content"] = [_part(part, f"{where}[{at}]") for at, part in enumerate(fresh["content"])]
        found.append(fresh)
    return found


def _call(call: Any) -> Any:
    if not isinstance(call, dict):
        return call
    if is_bare(call.get("function")):
        return {**call, "function": {**call["function"], "arguments": "{}"}}
    custom = call.get("custom") if call.get("type") == "custom" else None
    if not isinstance(custom, dict):
        return call
    function = {"name": custom.get("name"), "arguments": arguments_of(str(custom.get("input") or ""))}
    return {"id": call.get("id"), "type": "function", "function": function}


def _part(part: Any, where: str) -> Any:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "refusal":
        return {"type": "text", "text": str(part.get("refusal") or "")}
    if kind == "image_url" and isinstance(part.get("image_url"), str):
        return {**part, "image_url": {"url": part["image_url"]}}
    if kind != "file":
        return part
    file = part.get("file") if isinstance(part.get("file"), dict) else {}
    return {"type": "text", "text": text_of_file(file.get("file_data"), file.get("filename"), where)}


def _read(raw: msgspec.Raw, kind: type[Any], where: str) -> Any:
    try:
        return msgspec.json.decode(bytes(raw), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DialectError(
            400, f"{where} cannot be read: {error}", param=where, code="invalid_type"
        ) from None


# -- answers


class Reshaping:
    """One answer in the ``shape`` that its client expects; whole, or by the events of its stream as they are framed."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._custom: dict[tuple[int, int], list[str]] = {}  # arguments so far, by choice and call

    def whole(self, body: bytes) -> bytes:
        top: dict[str, Any] = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        choices: list[dict[str, Any]] = msgspec.json.decode(bytes(top["choices"]))
        for choice in choices:
            self._finish(choice)
            message = choice.get("message") or {}
            calls = message.pop("tool_calls", None)
            if calls and self._shape.functions:
                message |= {"content": message.get("content") or None, "function_call": calls[0]["function"]}
            elif calls:
                message["tool_calls"] = [self._whole_call(call) for call in calls]
        return _encode({**top, "choices": choices})

    def stream(self, data: bytes) -> bytes:
        """``data`` are events as they were framed, each whole."""
        return b"".join(map(self._event, data.split(b"\n\n")[:-1]))

    def _event(self, frame: bytes) -> bytes:
        if not any(mark in frame for mark in _TELLING):
            return frame + b"\n\n"
        top: dict[str, Any] = msgspec.json.decode(frame.removeprefix(b"data: "), type=dict[str, msgspec.Raw])
        choices: list[dict[str, Any]] = msgspec.json.decode(bytes(top.get("choices", _NOTHING)) or b"[]")
        before = b"".join(self._inputs(top, choice) for choice in choices if choice.get("finish_reason"))
        for choice in choices:
            self._finish(choice)
            delta = choice.get("delta") or {}
            calls = delta.pop("tool_calls", None)
            if calls and self._shape.functions:
                first = [call["function"] for call in calls if not call.get("index")]
                delta |= {"function_call": first[0]} if first else {}
            elif calls and (told := [one for call in calls if (one := self._piece(choice, call))]):
                delta["tool_calls"] = told
        return before + _framed({**top, "choices": choices})

    def _finish(self, choice: dict[str, Any]) -> None:
        if self._shape.functions and choice.get("finish_reason") == "tool_calls":
            choice["finish_reason"] = "function_call"
        rows = (choice.get("logprobs") or {}).get("content") if self._shape.without_rivals else None
        for row in rows or ():
            row["top_logprobs"] = []

    def _whole_call(self, call: dict[str, Any]) -> dict[str, Any]:
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        if name not in self._shape.custom:
            return call
        return {
            "id": call.get("id"),
            "type": "custom",
            "custom": {"name": name, "input": input_of(arguments)},
        }

    def _piece(self, choice: dict[str, Any], call: dict[str, Any]) -> dict[str, Any] | None:
        """A piece of a call; a custom tool's text can be told once it is whole, so of it only the beginning is."""
        function, key = call.get("function") or {}, (choice.get("index", 0), call.get("index", 0))
        is_new = function.get("name") in self._shape.custom
        if is_new:
            self._custom[key] = []
        if key not in self._custom:
            return call
        self._custom[key].append(function.get("arguments") or "")
        if not is_new:
            return None
        told = {"name": function["name"], "input": ""}
        return {"index": call.get("index", 0), "id": call.get("id"), "type": "custom", "custom": told}

    def _inputs(self, top: dict[str, Any], choice: dict[str, Any]) -> bytes:
        """Events with the texts of the custom tools that this choice, which ends, calls."""
        out = b""
        for place, index in [key for key in self._custom if key[0] == choice.get("index", 0)]:
            text = input_of("".join(self._custom.pop((place, index))))
            delta = {"tool_calls": [{"index": index, "custom": {"input": text}}]}
            more = {name: value for name, value in top.items() if name not in ("usage", "timings")}
            out += _framed({**more, "choices": [{"finish_reason": None, "index": place, "delta": delta}]})
        return out


def _framed(event: dict[str, Any]) -> bytes:
    return b"data: " + _encode(event) + b"\n\n"
