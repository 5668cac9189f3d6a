"""Anthropic's requests: ``/v1/messages`` and ``/v1/messages/count_tokens`` → neutral ones.

Facts: Anthropic's Messages API; texts that Ollama's clients know (Ollama anthropic/anthropic.go); Claude Code's system
text (llama.cpp tools/server/server-chat.cpp).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

from llamamgr.wire import golang
from llamamgr.wire.anthropic_turns import Block, Conversation, Images, Turn
from llamamgr.wire.errors import DialectError
from llamamgr.wire.neutral import ChatRequest, JsonSchema, Message, ResponseFormat, Think
from llamamgr.wire.openai_chat import effort
from llamamgr.wire.openai_tools import choose

# Claude Code puts a stamp before its system text that changes with every request; the model has no use for it
_BILLING = re.compile(r"\Ax-anthropic-billing-header:(?:\s*[\w.-]+=[^;\n]*;)*\s*")
_NOTHING = msgspec.Raw(b"")
# tools without a schema that clients run, and those of the client's own making
_CLIENTS = ("bash_", "computer_", "memory_", "text_editor_", "custom")
# sampling that is the engine's own and passes under its name
_EXTRAS = (
    *(
        "min_p",
        "typical_p",
        "seed",
        "repeat_penalty",
        "repeat_last_n",
        "presence_penalty",
        "frequency_penalty",
    ),
    *(
        "mirostat",
        "mirostat_tau",
        "mirostat_eta",
        "logit_bias",
        "grammar",
        "cache_prompt",
        "samplers",
        "lora",
    ),
    *("xtc_probability", "xtc_threshold", "dry_multiplier", "dry_base", "dry_allowed_length", "top_n_sigma"),
)


class MessagesRequest(msgspec.Struct, frozen=True):
    """``POST /v1/messages``.

    ``tells_cache``: the client asked for prompt caching, so cached tokens are told apart. ``prefill`` is the start of
    the answer, given by the client. ``shows_thinking``: thoughts are told, not only that there were some. ``left_out``
    are tools that only Anthropic's servers can run. ``addresses`` of images are to be fetched, and the request to be
    parsed again with what they hold.
    """

    model: str
    chat: ChatRequest
    stream: bool = False
    stop_sequences: tuple[str, ...] = ()
    tells_cache: bool = False
    prefill: str = ""
    shows_thinking: bool = True
    left_out: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()


class _Tool(msgspec.Struct):
    name: str = ""
    type: str | None = None
    description: str | None = None
    input_schema: msgspec.Raw = _NOTHING


class _Choice(msgspec.Struct):
    type: str = ""
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class _Thinking(msgspec.Struct):
    type: str = ""
    budget_tokens: int | None = None
    display: str | None = None


class _Format(msgspec.Struct):
    type: str = ""
    schema: msgspec.Raw = _NOTHING


class _Output(msgspec.Struct):
    effort: str | None = None
    format: _Format | None = None


class Wire(msgspec.Struct):
    model: str | None = None
    max_tokens: int | None = None
    messages: list[Turn] | None = None
    system: str | list[Block] | None = None
    stream: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop_sequences: list[str] | None = None
    tools: list[_Tool] | None = None
    tool_choice: _Choice | None = None
    thinking: _Thinking | None = None
    output_config: _Output | None = None
    output_format: _Format | None = None


def parse_messages(
    body: bytes, *, fetching: bool = False, fetched: Mapping[str, str] | None = None
) -> MessagesRequest:
    """``DialectError`` 400 for what cannot be asked.

    ``fetched`` maps addresses of images to ``data:`` addresses; others are refused unless ``fetching``.
    """
    wire, sound = _decode(body)
    if wire.max_tokens is None or wire.max_tokens < 0:  # 0: the prompt is only read, into the cache
        raise DialectError(400, "max_tokens is required and must be positive")
    _check_offer(wire)
    return _request(wire, sound, Images(fetching, fetched or {}))


def parse_count(body: bytes) -> MessagesRequest:
    """``POST /v1/messages/count_tokens``: the same without ``max_tokens``."""
    wire, sound = _decode(body)
    return _request(wire, sound, Images(False, {}))


def _decode(body: bytes) -> tuple[Wire, bytes]:
    if not body.strip():
        raise DialectError(400, "EOF")
    wire, sound = golang.decode_sound(body, Wire, "anthropic.MessagesRequest", {})
    if not wire.model:
        raise DialectError(400, "model is required")
    if not wire.messages:
        raise DialectError(400, "messages is required")
    return wire, sound


def _request(wire: Wire, sound: bytes, pictures: Images) -> MessagesRequest:
    turns = Conversation(pictures)
    system = _system(wire.system)
    for place, turn in enumerate(wire.messages or ()):
        turns.add(turn, f"messages.{place}")
    left_out = tuple(tool.name or str(tool.type) for tool in wire.tools or () if _is_hosted(tool))
    tools, choice = _tools(wire)
    stops = tuple(stop for stop in wire.stop_sequences or () if stop)
    output = wire.output_config or _Output()
    chat = ChatRequest(
        messages=(*system, *turns.messages),
        tools=tools,
        tool_choice=choice,
        sampling=_sampling(wire, sound, stops),
        response_format=_format(output.format or wire.output_format),
        think=_think(wire.thinking),
    )
    last = turns.messages[-1] if turns.messages else Message("user")
    return MessagesRequest(
        model=wire.model or "",
        chat=chat,
        stream=bool(wire.stream),
        stop_sequences=stops,
        # as a key only: inside a string the quotes would be escaped
        tells_cache=b'"cache_control"' in sound,
        prefill=last.content if last.role == "assistant" and not last.tool_calls else "",
        shows_thinking=wire.thinking is None or wire.thinking.display != "omitted",
        left_out=left_out,
        addresses=tuple(pictures.wanted),
    )


def _sampling(wire: Wire, sound: bytes, stops: tuple[str, ...]) -> dict[str, object]:
    fields = msgspec.json.decode(sound, type=dict[str, msgspec.Raw])
    plain: dict[str, object] = {
        "max_tokens": wire.max_tokens,
        "temperature": wire.temperature,
        "top_p": wire.top_p,
        "top_k": wire.top_k,
        # the prompt's tokens are known when it has been read, not at the end only
        "return_progress": True if wire.stream else None,
        "stop": stops or None,
        # the one way that llama-server tells which stop text it met
        "verbose": True if stops else None,
        **{name: fields[name] for name in _EXTRAS if name in fields},
    }
    if wire.thinking is not None and wire.thinking.type == "enabled":
        plain["thinking_budget_tokens"] = wire.thinking.budget_tokens
    if wire.tool_choice is not None and wire.tool_choice.disable_parallel_tool_use is not None:
        plain["parallel_tool_calls"] = not wire.tool_choice.disable_parallel_tool_use
    if wire.output_config is not None and wire.output_config.effort:
        plain["reasoning_effort"] = _effort(wire.output_config.effort)
    return {name: value for name, value in plain.items() if value is not None}


def _effort(word: str) -> str:
    try:
        return effort(word)
    except DialectError as error:
        raise DialectError(400, f"output_config.effort: {error.message}") from None


def _think(asked: _Thinking | None) -> Think:
    """Unlike with Ollama a model thinks only when it is told to, or when it may choose (``adaptive``)."""
    if asked is None or asked.type in ("disabled", "between_tools"):
        return False
    if asked.type == "adaptive":
        return None
    if asked.type != "enabled":
        raise DialectError(
            400,
            f"thinking.type: {asked.type!r} is none of 'enabled', 'disabled', 'adaptive', 'between_tools'",
        )
    if asked.budget_tokens is not None and asked.budget_tokens < 1:
        raise DialectError(400, "thinking.budget_tokens: must be positive")
    return True


def _format(asked: _Format | None) -> ResponseFormat | None:
    if asked is None:
        return None
    if asked.type != "json_schema" or not bytes(asked.schema).startswith(b"{"):
        raise DialectError(400, 'output_config.format: must be {"type": "json_schema", "schema": …}')
    return JsonSchema(asked.schema)


def _is_hosted(tool: _Tool) -> bool:
    """True for a tool without a schema of its own: only Anthropic's servers or its clients know it."""
    return not bytes(tool.input_schema).startswith(b"{")


def _is_servers(tool: _Tool) -> bool:
    """True for a hosted tool that Anthropic's servers run; the others are run by its clients."""
    return _is_hosted(tool) and not (tool.type or "custom").startswith(_CLIENTS)


def _check_offer(wire: Wire) -> None:
    """``DialectError`` where all tools are the servers': a model without any would invent what they should have found."""
    may_call = wire.tool_choice is None or wire.tool_choice.type != "none"
    if wire.tools and may_call and all(map(_is_servers, wire.tools)):
        raise _not_here(wire.tools[0])


def _check_named(tools: Sequence[_Tool], name: str) -> None:
    """``DialectError`` for a tool that must be called and cannot be offered."""
    named = [tool for tool in tools if tool.name == name]
    if named and all(map(_is_hosted, named)):
        raise _not_here(named[0])


def _not_here(tool: _Tool) -> DialectError:
    name = tool.name or str(tool.type)
    if not _is_servers(tool):
        return DialectError(
            400, f"tool_choice: no model here knows {name} without an input_schema of its own"
        )
    what = (
        f"{name} is run by Anthropic's servers only; there are none here: offer a tool that the client runs"
    )
    return DialectError(400, what)


def _tools(wire: Wire) -> tuple[tuple[msgspec.Raw, ...], str]:
    given = [_tool(tool) for tool in wire.tools or () if not _is_hosted(tool)]
    asked = wire.tool_choice
    if asked is None or (asked.type == "auto" and not given):
        return tuple(given), ""
    if asked.type not in ("auto", "any", "tool", "none"):
        raise DialectError(400, f"tool_choice.type: {asked.type!r} is none of 'auto', 'any', 'tool', 'none'")
    if asked.type == "tool":
        _check_named(wire.tools or (), asked.name or "")
    named = {"type": "function", "function": {"name": asked.name or ""}}
    offer = choose(given, msgspec.Raw(msgspec.json.encode(named if asked.type == "tool" else asked.type)))
    return offer.tools, offer.choice


def _tool(tool: _Tool) -> msgspec.Raw:
    function: dict[str, object] = {"name": tool.name, "parameters": tool.input_schema}
    if tool.description is not None:
        function["description"] = tool.description
    return msgspec.Raw(msgspec.json.encode({"type": "function", "function": function}))


def _system(given: str | list[Block] | None) -> tuple[Message, ...]:
    texts = [given] if isinstance(given, str) else [block.text or "" for block in given or ()]
    kept = [text for text in (_BILLING.sub("", text) for text in texts) if text]
    return (Message("system", "\n\n".join(kept)),) if kept else ()
