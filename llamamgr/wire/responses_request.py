"""``POST /v1/responses``: items in, a neutral chat out.

Facts: OpenAI's Responses API.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from llamamgr.wire import golang
from llamamgr.wire.errors import DialectError
from llamamgr.wire.neutral import ChatRequest, JsonObject, JsonSchema, Message, ResponseFormat
from llamamgr.wire.openai_chat import effort
from llamamgr.wire.openai_tools import NOTHING, choose
from llamamgr.wire.responses_items import Item, Reading, joined
from llamamgr.wire.responses_stored import full
from llamamgr.wire.responses_tools import chosen, read_tools, shown

_EXTRAS = (
    *(
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "seed",
        "presence_penalty",
        "frequency_penalty",
        "repeat_penalty",
    ),
    *(
        "stop",
        "logit_bias",
        "grammar",
        "cache_prompt",
        "samplers",
        "parallel_tool_calls",
        "chat_template_kwargs",
    ),
)
_NOT_SERVED = ("background", "conversation", "prompt")

# An item's id → its JSON, or None when there is no such item.
Recall: TypeAlias = Callable[[str], bytes | None]


class ResponseRequest(msgspec.Struct, frozen=True):
    """What is asked for.

    ``turns`` are those of ``input`` alone, without ``instructions`` and what came before; ``chat`` makes the whole. ``items`` are
    what they were read from, in full, references replaced by what they mean; none where nothing is to be stored.
    ``echo`` are fields that the answer repeats. ``summarised``: reasoning is told as a summary, ``sealed``: with
    ``encrypted_content``. ``truncates``: what is too long loses its oldest turns. ``custom`` are
    the names of custom tools; ``spaces`` maps the names of tools in namespaces, as they are offered, to namespace and name.
    """

    model: str
    turns: tuple[Message, ...]
    items: tuple[Mapping[str, Any], ...] = ()
    instructions: str = ""
    stream: bool = False
    store: bool = True
    previous: str = ""
    tools: tuple[msgspec.Raw, ...] = ()
    custom: frozenset[str] = frozenset()
    spaces: Mapping[str, tuple[str, str]] = {}
    tool_choice: str = ""
    sampling: Mapping[str, object] = {}
    response_format: ResponseFormat | None = None
    think: bool | None = None
    summarised: bool = False
    sealed: bool = False
    logprobs: bool = False
    top_logprobs: int = 0
    truncates: bool = False
    echo: Mapping[str, Any] = {}
    left_out: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()

    def chat(self, before: Sequence[Message] = ()) -> ChatRequest:
        """The conversation that goes on from ``before``."""
        system = (Message("system", self.instructions),) if self.instructions else ()
        return ChatRequest(
            messages=joined((*system, *before, *self.turns)),
            tools=self.tools,
            tool_choice=self.tool_choice,
            sampling=self.sampling,
            response_format=self.response_format,
            think=self.think,
            logprobs=self.logprobs,
            top_logprobs=self.top_logprobs if self.logprobs else 0,
        )


class _Reasoning(msgspec.Struct):
    effort: str | None = None
    summary: str | None = None
    generate_summary: str | None = None


class _Format(msgspec.Struct):
    type: str = "text"
    schema: msgspec.Raw = NOTHING


class _Text(msgspec.Struct):
    format: _Format | None = None


class Wire(msgspec.Struct):
    model: str | None = None
    input: str | list[Item] | None = None
    instructions: str | None = None
    stream: bool | None = None
    store: bool | None = None
    previous_response_id: str | None = None
    max_output_tokens: int | None = None
    reasoning: _Reasoning | None = None
    text: _Text | None = None
    tools: list[msgspec.Raw] | None = None
    tool_choice: msgspec.Raw = NOTHING
    include: list[str] | None = None
    metadata: dict[str, str] | None = None
    top_logprobs: int | None = None
    truncation: str | None = None


_ECHOED: dict[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "safety_identifier": None,
    "temperature": None,
    "tool_choice": "auto",
    "top_logprobs": 0,
    "top_p": None,
    "truncation": "disabled",
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "user": None,
}
# objects whose fields have defaults of their own
_COMPLETED: dict[str, dict[str, Any]] = {
    "reasoning": {"effort": None, "summary": None},
    "text": {"format": {"type": "text"}},
}
_MOST_METADATA = 16


def parse(
    body: bytes,
    *,
    fetching: bool = False,
    fetched: Mapping[str, str] | None = None,
    recall: Recall = lambda _: None,
) -> ResponseRequest:
    """``DialectError`` 400 for what cannot be asked, 404 for a reference to an unknown item.

    ``fetched`` maps addresses of images to ``data:`` addresses.
    """
    wire, fields = _read(body)
    if not wire.model:
        raise DialectError(400, "model is required", param="model")
    if not wire.input:
        raise DialectError(400, "input is required", param="input")
    return _request(wire, fields, Reading(fetching, fetched or {}), recall)


def parse_count(
    body: bytes,
    *,
    fetching: bool = False,
    fetched: Mapping[str, str] | None = None,
    recall: Recall = lambda _: None,
) -> ResponseRequest:
    """As ``parse``, of ``POST /v1/responses/input_tokens``: what goes on from an answer need not say a model, nor more input."""
    wire, fields = _read(body)
    if not wire.previous_response_id:
        if not wire.model:
            raise DialectError(400, "model is required", param="model")
        if not wire.input:
            raise DialectError(400, "input is required", param="input")
    return _request(wire, fields, Reading(fetching, fetched or {}), recall)


def count_answer(tokens: int) -> bytes:
    """The answer to what ``parse_count`` reads."""
    return golang.encode({"object": "response.input_tokens", "input_tokens": tokens})


def _read(body: bytes) -> tuple[Wire, dict[str, msgspec.Raw]]:
    if not body.strip():
        raise DialectError(400, "EOF")
    wire, sound = golang.decode_sound(body, Wire, "openai.ResponsesRequest", {})
    fields: dict[str, msgspec.Raw] = msgspec.json.decode(sound, type=dict[str, msgspec.Raw])
    for name in _NOT_SERVED:
        if bytes(fields.get(name, NOTHING)) not in (b"", b"null", b"false"):
            raise DialectError(400, f"{name} is not served; leave it out", param=name)
    return wire, fields


def _request(
    wire: Wire, fields: Mapping[str, msgspec.Raw], reading: Reading, recall: Recall
) -> ResponseRequest:
    _check(wire)
    offered = read_tools(wire.tools or ())
    offer = choose(offered.tools, chosen(wire.tool_choice, offered))
    given = _given(wire.input, fields, recall)
    turns = tuple(
        turn for place, (item, _) in enumerate(given) for turn in reading.turns(item, f"input[{place}]")
    )
    reasoning = wire.reasoning or _Reasoning()
    include = wire.include or ()
    wanted = None if reasoning.effort is None else effort(reasoning.effort, "reasoning.effort")
    return ResponseRequest(
        model=wire.model or "",
        turns=turns,
        items=_in_full(given) if wire.store is not False else (),
        instructions=wire.instructions or "",
        stream=bool(wire.stream),
        store=wire.store is not False,
        previous=wire.previous_response_id or "",
        tools=offer.tools,
        custom=frozenset(offered.custom),
        spaces=offered.spaces,
        tool_choice=offer.choice,
        sampling=_sampling(wire, fields, wanted),
        response_format=_format(wire.text),
        think=None if wanted is None else wanted != "none",
        summarised=bool(reasoning.summary or reasoning.generate_summary),
        sealed="reasoning.encrypted_content" in include,
        logprobs="message.output_text.logprobs" in include or bool(wire.top_logprobs),
        top_logprobs=wire.top_logprobs or 0,
        truncates=wire.truncation == "auto",
        echo=_echo(fields),
        left_out=tuple(offered.left_out),
        addresses=tuple(reading.wanted),
    )


def _check(wire: Wire) -> None:
    if wire.truncation not in (None, "auto", "disabled"):
        raise DialectError(400, "truncation must be auto or disabled", param="truncation")
    if not 0 <= (wire.top_logprobs or 0) <= 20:
        raise DialectError(400, "top_logprobs must be from 0 to 20", param="top_logprobs")
    if len(wire.metadata or ()) > _MOST_METADATA:
        raise DialectError(
            400, f"metadata may have {_MOST_METADATA} pairs of key and value at most", param="metadata"
        )


def _given(
    told: str | list[Item] | None, fields: Mapping[str, msgspec.Raw], recall: Recall
) -> list[tuple[Item, msgspec.Raw]]:
    """The items of ``input``, each with its JSON."""
    if not told:
        return []
    if isinstance(told, str):
        said = msgspec.json.encode({"role": "user", "content": told})
        return [(Item(role="user", content=told), msgspec.Raw(said))]
    raws = msgspec.json.decode(fields["input"], type=list[msgspec.Raw])
    return [
        _meant(item.id or "", recall) if item.is_reference else (item, raw)
        for item, raw in zip(told, raws, strict=True)
    ]


def _in_full(given: Sequence[tuple[Item, msgspec.Raw]]) -> tuple[Mapping[str, Any], ...]:
    try:
        return tuple(full(item, raw) for item, raw in given)
    except RecursionError:
        raise DialectError(400, "json: exceeded max depth") from None


def _meant(id: str, recall: Recall) -> tuple[Item, msgspec.Raw]:  # noqa: A002 - the field's name
    known = recall(id)
    if known is None:
        raise DialectError(
            404,
            f"Item with id '{id}' not found. Items are not kept of what was asked with store: false; send the item itself",
            param="input",
        )
    return golang.decode(known, Item, "openai.Item", {}), msgspec.Raw(known)


def _sampling(wire: Wire, fields: Mapping[str, msgspec.Raw], wanted: str | None) -> dict[str, object]:
    found: dict[str, object] = {
        name: fields[name] for name in _EXTRAS if name in fields and bytes(fields[name]) != b"null"
    }
    if wire.max_output_tokens is not None:
        if wire.max_output_tokens < 1:
            raise DialectError(400, "max_output_tokens must be positive", param="max_output_tokens")
        found["max_tokens"] = wire.max_output_tokens
    if wanted is not None:
        found["reasoning_effort"] = wanted
    if wire.stream:
        found["return_progress"] = True  # so that a client hears of its answer while a long prompt is read
    return found


def _format(text: _Text | None) -> ResponseFormat | None:
    asked = text.format if text else None
    if asked is None or asked.type == "text":
        return None
    if asked.type == "json_object":
        return JsonObject()
    if asked.type != "json_schema" or not bytes(asked.schema).startswith(b"{"):
        raise DialectError(
            400,
            "text.format must be of type text, json_object or json_schema with a schema",
            param="text.format",
        )
    return JsonSchema(asked.schema)


def _echo(fields: Mapping[str, msgspec.Raw]) -> dict[str, Any]:
    """Fields as the client sent them, defaults for the rest; of the tools only those that are offered."""
    said = {name: raw for name, raw in fields.items() if bytes(raw) not in (b"", b"null")}
    told = {name: said.get(name, default) for name, default in _ECHOED.items()}
    for name, defaults in _COMPLETED.items():
        more = msgspec.json.decode(said[name], type=dict[str, msgspec.Raw]) if name in said else {}
        told[name] = {**defaults, **more}
    tools = shown(said.get("tools", NOTHING))
    return {**told, "tools": tools, "service_tier": "default"}
