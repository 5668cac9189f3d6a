"""What a Modelfile adds to requests of other dialects than Ollama's: words before them, sampling under them."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from llamamgr.wire.neutral import ChatRequest, Message
from llamamgr.wire.persona import NOBODY, Persona

# the engine's names for one thing
_LIMITS = frozenset({"n_predict", "max_tokens", "max_completion_tokens"})


class _Top(msgspec.Struct):
    role: str = ""


def guided(chat: ChatRequest, persona: Persona) -> ChatRequest:
    """``chat`` after the persona's own words; its system text gives way to the conversation's."""
    if persona == NOBODY:
        return chat
    first = chat.messages[0] if chat.messages else None
    has_system = isinstance(first, Message) and first.role == "system"
    return msgspec.structs.replace(
        chat,
        messages=(*_before(persona, has_system=has_system), *chat.messages),
        sampling={**chat.sampling, **sampling_under(persona, chat.sampling)},
    )


def guided_body(body: bytes, persona: Persona) -> bytes:
    """The same for a chat in OpenAI's form, all of whose other bytes stay."""
    if persona == NOBODY:
        return body
    top: dict[str, msgspec.Raw] = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    turns = msgspec.json.decode(bytes(top["messages"]), type=list[msgspec.Raw])
    first = msgspec.json.decode(bytes(turns[0]), type=_Top) if turns else _Top()
    before = _before(persona, has_system=first.role in ("system", "developer"))
    said = [{"role": turn.role, "content": turn.content} for turn in before]
    return msgspec.json.encode({**top, **sampling_under(persona, top), "messages": [*said, *turns]})


def sampling_under(persona: Persona, given: Mapping[str, object]) -> dict[str, object]:
    """The persona's sampling where ``given``, request fields in the engine's names, says nothing."""
    said = {
        name for name, value in given.items() if not isinstance(value, msgspec.Raw) or bytes(value) != b"null"
    }
    if said & _LIMITS:
        said |= _LIMITS
    return {
        name: value
        for name, value in persona.options.sampling.items()
        # no limit is the engine's own default
        if name not in said and not (name == "n_predict" and isinstance(value, int) and value <= 0)
    }


def _before(persona: Persona, *, has_system: bool) -> tuple[Message, ...]:
    if persona.system and not has_system:
        return (Message("system", persona.system), *persona.messages)
    return persona.messages
