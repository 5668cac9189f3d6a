"""Ollama's requests → neutral ones, and whether a model can do what they ask."""

from __future__ import annotations

import re

import msgspec

from llamamgr.core.errors import InvalidNameError
from llamamgr.core.names import ModelName
from llamamgr.wire import golang
from llamamgr.wire.clamping import clamping
from llamamgr.wire.errors import DialectError
from llamamgr.wire.neutral import ChatRequest, Message, PromptRequest, Sampling, Think
from llamamgr.wire.ollama_options import settle
from llamamgr.wire.ollama_request import ChatBody, GenerateRequest, Inference
from llamamgr.wire.persona import NOBODY, Persona, begin

_SHARE_OF_PROMPT = 0.75  # of the context; the rest is left for the answer
_MARKS = 16  # characters that a template writes around a turn, or so
# the engine's words for a prompt that is longer than a slot's context
_TOO_LONG = re.compile(r"\((\d+) tokens\) exceeds the available context size \((\d+) tokens\)")


def check_capabilities(request: Inference, capabilities: tuple[str, ...], name: str = "") -> None:
    """``DialectError`` 400 when the model cannot do what is asked; ``capabilities`` are Ollama's words.

    ``name`` is the name as requested (the request's own when empty). A load asks for nothing but completion.
    """
    name = name or request.model
    verb = "generate" if isinstance(request, GenerateRequest) else "chat"
    if "completion" not in capabilities:
        raise DialectError(400, f"{golang.quote(name.encode())} does not support {verb}")
    if isinstance(request, GenerateRequest) and request.suffix and "insert" not in capabilities:
        raise DialectError(400, f"{_full(name)} does not support insert")
    if isinstance(request, ChatBody) and request.tools and "tools" not in capabilities:
        raise DialectError(400, f"{_full(name)} does not support tools")
    if request.think and "thinking" not in capabilities:
        raise DialectError(400, f"{golang.quote(name.encode())} does not support thinking")
    if request.images and not {"vision", "audio"} & set(capabilities):
        raise DialectError(400, "Multimodal data provided, but model does not support multimodal requests.")


def _full(name: str) -> str:
    try:
        return ModelName.parse(name).full
    except InvalidNameError:
        return name


def turns(request: Inference, persona: Persona = NOBODY) -> tuple[Message, ...]:
    """The conversation that a request stands for; a prompt is one turn of the user, after the system's."""
    if isinstance(request, ChatBody):
        return begin(request.messages, persona)
    system = request.system or persona.system
    before = () if request.context else persona.messages
    user = Message("user", request.prompt, images=request.images)
    return (*((Message("system", system),) if system else ()), *before, user)


def thinking(request: Inference, capabilities: tuple[str, ...]) -> Think:
    """A model that can think does, unless told not to."""
    if request.think is None and "thinking" in capabilities:
        return True
    return request.think


def to_chat_request(
    request: Inference, context: int, capabilities: tuple[str, ...] = (), persona: Persona = NOBODY
) -> ChatRequest:
    """For the engine's chat endpoint; ``context`` is the child's tokens per slot, which bounds the answer."""
    return ChatRequest(
        messages=turns(request, persona),
        tools=request.tools if isinstance(request, ChatBody) else (),
        sampling=_sampling(request, context, persona),
        response_format=request.response_format,
        think=thinking(request, capabilities),
        logprobs=request.logprobs,
        top_logprobs=request.top_logprobs if request.logprobs else 0,
    )


def _sampling(request: Inference, context: int, persona: Persona) -> Sampling:
    settled = settle(request.options.over(persona.options).sampling, context)
    return {**settled, **clamping(settled, persona.clamps)} if persona.clamps else settled


def shortened(request: ChatRequest, refusal: str) -> ChatRequest | None:
    """Without the oldest messages, as many as the engine's ``refusal`` of a too long prompt tells; None when none can go.

    System messages and the last one stay, as Ollama's ``truncate`` has it.
    """
    told = _TOO_LONG.search(refusal)
    if told is None:
        return None
    turns = [message for message in request.messages if isinstance(message, Message)]
    tokens, room = int(told[1]), int(told[2]) * _SHARE_OF_PROMPT
    excess = sum(map(_weight, turns)) * max(0.0, tokens - room) / max(1, tokens)
    going: set[int] = set()
    for index, turn in enumerate(turns[:-1]):
        if turn.role == "system":
            continue
        if going and excess <= 0:
            break
        going.add(index)
        excess -= _weight(turn)
    if not going:
        return None
    kept = tuple(turn for index, turn in enumerate(turns) if index not in going)
    return msgspec.structs.replace(request, messages=kept)


def _weight(turn: Message) -> int:
    """Of a turn in a prompt, in characters or so; one without words has its marks, or cutting many of them would never end."""
    calls = sum(len(call.name) + len(call.arguments) for call in turn.tool_calls)
    return _MARKS + len(turn.content) + len(turn.thinking) + calls


def to_prompt_request(
    request: Inference, prompt: str, context: int, persona: Persona = NOBODY
) -> PromptRequest:
    """For the engine's completion endpoint; ``prompt`` is a raw one, or what the model's template made."""
    return PromptRequest(
        prompt=prompt,
        sampling=_sampling(request, context, persona),
        response_format=request.response_format,
        logprobs=request.logprobs,
        top_logprobs=request.top_logprobs if request.logprobs else 0,
    )
