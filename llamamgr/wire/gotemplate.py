"""A Modelfile's Go template: conversation → the prompt that an engine continues.

::

    text ─ gotemplate_lexer ─► tokens ─ _syntax ─► nodes ─ _render, over _values ─► prompt

Which values a template gets depends on what it names, as with Ollama (source: template/template.go): one with ``.Messages``
is given the conversation; an older one, with ``.System``, ``.Prompt`` and ``.Response``, is rendered once per exchange, and
what comes after ``.Response`` is cut off the last one.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from llamamgr.wire import gotemplate_values as values
from llamamgr.wire.gotemplate_lexer import TemplateError
from llamamgr.wire.gotemplate_nodes import (
    Action,
    Branch,
    Chain,
    Field,
    Function,
    Nodes,
    Operand,
    Pipeline,
    Variable,
)
from llamamgr.wire.gotemplate_render import render
from llamamgr.wire.gotemplate_syntax import parse
from llamamgr.wire.gotemplate_values import FUNCTIONS, UNSUPPORTED
from llamamgr.wire.neutral import Message, Think, ToolCall

__all__ = ["Template", "TemplateError", "compiled", "fields_of", "operands_of"]


class Template(msgspec.Struct, frozen=True):
    """A parsed template. ``names`` are the fields it uses, in lower case: ``messages``, ``tools``, ``suffix`` …"""

    nodes: Nodes
    names: frozenset[str]

    @property
    def can_insert(self) -> bool:
        return "suffix" in self.names

    @property
    def can_call_tools(self) -> bool:
        return "tools" in self.names

    @property
    def can_think(self) -> bool:
        return "thinking" in self.names

    def prompt(
        self,
        messages: tuple[Message, ...],
        tools: tuple[msgspec.Raw, ...] = (),
        think: Think = None,
        dates: tuple[str, str] = ("", ""),
    ) -> str:
        """The prompt of a conversation; ``TemplateError`` when the template fails on it.

        ``dates`` are today and yesterday as ``2026-11-20``, for templates that tell them.
        """
        thought = {
            "Think": bool(think),
            "ThinkLevel": think if isinstance(think, str) else "",
            "IsThinkSet": think is not None,
        }
        if "messages" not in self.names:
            return self._exchanges(messages, thought, dates)
        system, collated = _collated(messages)
        data = {
            "System": system,
            "Messages": [_message(message) for message in collated],
            "Tools": _tools(tools),
            "Response": "",
            **thought,
        }
        return render(self.nodes, data, dates)

    def fill_in(self, prompt: str, suffix: str) -> str:
        """The prompt that makes a model write what stands between ``prompt`` and ``suffix``."""
        return render(self.nodes, {"Prompt": prompt, "Suffix": suffix, "Response": ""}, ("", ""))

    def _exchanges(
        self, messages: tuple[Message, ...], thought: dict[str, Any], dates: tuple[str, str]
    ) -> str:
        """Prompt and answer in turn, by a template that knows no more than one exchange."""
        text = ""
        now = {"System": "", "Prompt": "", "Response": ""}

        def close() -> None:
            nonlocal text, now
            text += render(self.nodes, {**now, **thought}, dates)
            now = dict.fromkeys(now, "")

        for message in _collated(messages)[1]:
            if message.role == "system":
                if now["Prompt"] or now["Response"]:
                    close()
                now["System"] = message.content
            elif message.role == "user":
                if now["Response"]:
                    close()
                now["Prompt"] = message.content
            elif message.role == "assistant":
                now["Response"] = message.content
        return text + render(_cut(self.nodes)[0], {**now, **thought}, dates)


@functools.lru_cache(maxsize=64)
def compiled(text: str) -> Template:
    """``text`` parsed; ``TemplateError`` in Go's words, or naming the construct that is not supported."""
    nodes = parse(text, FUNCTIONS | frozenset(UNSUPPORTED))
    for operand in operands_of(nodes):
        if isinstance(operand, Function) and operand.name in UNSUPPORTED:
            raise TemplateError(f'template: the function "{operand.name}" is not supported here')
    names = frozenset(name.lower() for operand in operands_of(nodes) for name in fields_of(operand))
    if not names & {"messages", "response"}:
        nodes += (Action(Pipeline(((Field(("Response",)),),))),)
        names |= {"response"}
    return Template(nodes, names)


def _collated(messages: tuple[Message, ...]) -> tuple[str, list[Message]]:
    """The system's words as one text, and the messages with neighbours of one role joined, but for tools' results."""
    collated: list[Message] = []
    for message in messages:
        if collated and collated[-1].role == message.role != "tool":
            joined = f"{collated[-1].content}\n\n{message.content}"
            collated[-1] = msgspec.structs.replace(collated[-1], content=joined)
        else:
            collated.append(message)
    return "\n\n".join(message.content for message in messages if message.role == "system"), collated


def _message(message: Message) -> values.Record:
    fields = {
        "Role": message.role,
        "Content": message.content,
        "Thinking": message.thinking,
        "Images": list(message.images),
        "ToolCalls": [_tool_call(call) for call in message.tool_calls],
        "ToolName": message.tool_name,
        "ToolCallID": message.tool_call_id,
    }
    said = {"role": message.role, "content": message.content}
    return values.Record("api.Message", fields, values.as_json(values.Record("", {}, _encoded(said))))


def _tool_call(call: ToolCall) -> values.Record:
    arguments = _object(call.arguments)
    function = {"Index": call.index, "Name": call.name, "Arguments": arguments}
    json = f'{{"name":{_encoded(call.name)},"arguments":{arguments.json}}}'
    inner = values.Record("api.ToolCallFunction", function, json)
    return values.Record(
        "api.ToolCall", {"ID": call.id, "Function": inner}, f'{{"function":{json}}}', is_shown_as_json=True
    )


def _tools(tools: tuple[msgspec.Raw, ...]) -> values.Listed:
    records = values.Listed(_tool(msgspec.json.decode(tool, type=dict[str, Any])) for tool in tools)
    records.json = "[" + ",".join(record.json for record in records) + "]"
    return records


def _tool(tool: dict[str, Any]) -> values.Record:
    declared = tool.get("function")
    declared = declared if isinstance(declared, dict) else {}
    schema = declared.get("parameters")
    parameters = _schema(schema if isinstance(schema, dict) else {}, "api.ToolFunctionParameters")
    function = {
        "Name": declared.get("name") or "",
        "Description": declared.get("description") or "",
        "Parameters": parameters,
    }
    inner = values.Record("api.ToolFunction", function, _encoded(declared), is_shown_as_json=True)
    fields = {"Type": tool.get("type") or "", "Items": tool.get("items"), "Function": inner}
    return values.Record("api.Tool", fields, _encoded(tool), is_shown_as_json=True)


def _schema(schema: Mapping[str, Any], kind: str) -> values.Record:
    """A JSON schema with the fields that templates know; its JSON is whole, as the client sent it."""
    properties = schema.get("properties")
    inner = properties if isinstance(properties, dict) else {}
    shown = values.Object(
        (name, _schema(one if isinstance(one, dict) else {}, "api.ToolProperty"))
        for name, one in inner.items()
    )
    shown.json = _encoded(inner)
    fields = {
        "Type": schema.get("type") or "",
        "Description": schema.get("description") or "",
        "Required": schema.get("required") or [],
        "Properties": shown,
        "Enum": schema.get("enum") or [],
        "Items": schema.get("items"),
        "AnyOf": schema.get("anyOf") or [],
        "Defs": schema.get("$defs"),
    }
    return values.Record(kind, fields, _encoded(schema), is_shown_as_json=True)


def _object(json: str) -> values.Object:
    try:
        data = msgspec.json.decode(json)
    except (msgspec.DecodeError, RecursionError):
        data = None
    shown = values.Object(data if isinstance(data, dict) else {})
    shown.json = _encoded(dict(shown))
    return shown


def _encoded(value: Any) -> str:
    return msgspec.json.encode(value).decode()


# -- looking at nodes


def operands_of(nodes: Nodes) -> Iterator[Operand]:
    """Every operand anywhere in ``nodes``."""
    for node in nodes:
        match node:
            case Action(pipeline):
                yield from _of_pipeline(pipeline)
            case Branch(_, pipeline, body, otherwise):
                yield from _of_pipeline(pipeline)
                yield from operands_of(body)
                yield from operands_of(otherwise)


def _of_pipeline(pipeline: Pipeline) -> Iterator[Operand]:
    for command in pipeline.commands:
        for operand in command:
            yield operand
            if isinstance(operand, Pipeline):
                yield from _of_pipeline(operand)
            elif isinstance(operand, Chain):
                yield from _of_pipeline(Pipeline(((operand.of,),)))


def fields_of(operand: Operand) -> tuple[str, ...]:
    """The names after its dots."""
    match operand:
        case Field(names):
            return names
        case Variable(_, fields) | Chain(_, fields):
            return fields
        case _:
            return ()


def _cut(nodes: Nodes) -> tuple[Nodes, bool]:
    """``nodes`` up to the place where the answer is written, and whether there is such a place."""
    kept: list[Any] = []
    for node in nodes:
        is_cut = False
        match node:
            case Branch(_, _, body, otherwise):
                body, is_cut = _cut(body)
                if is_cut:
                    otherwise = ()
                else:
                    otherwise, is_cut = _cut(otherwise)
                kept.append(msgspec.structs.replace(node, body=body, otherwise=otherwise))
            case Action(pipeline):
                is_cut = any("Response" in fields_of(operand) for operand in _of_pipeline(pipeline))
                kept.append(node)
            case _:
                kept.append(node)
        if is_cut:
            return tuple(kept), True
    return tuple(kept), False
