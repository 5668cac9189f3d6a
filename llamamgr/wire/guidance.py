"""What a Modelfile and a model's settings add to requests of other dialects than Ollama's: words, values under, ranges around."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from llamamgr.core.sampling import SPELLINGS
from llamamgr.wire.clamping import clamping, is_said
from llamamgr.wire.errors import DialectError
from llamamgr.wire.neutral import ChatRequest, Message
from llamamgr.wire.persona import NOBODY, Persona


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
        sampling={**chat.sampling, **laid_over(persona, chat.sampling)},
    )


def guided_body(body: bytes, persona: Persona) -> bytes:
    """The same for a chat in OpenAI's form, all of whose other fields stay as they are written."""
    if persona == NOBODY:
        return body
    top: dict[str, msgspec.Raw] = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    changed = laid_over(persona, top)
    if persona.system or persona.messages:
        turns = msgspec.json.decode(bytes(top["messages"]), type=list[msgspec.Raw])
        first = msgspec.json.decode(bytes(turns[0]), type=_Top) if turns else _Top()
        before = _before(persona, has_system=first.role in ("system", "developer"))
        said = [{"role": turn.role, "content": turn.content} for turn in before]
        changed["messages"] = [*said, *turns]
    return msgspec.json.encode({**top, **changed}) if changed else body


def bounded_body(body: bytes, persona: Persona, limit: str) -> bytes:
    """A request in any form that the engine itself reads, with the persona's sampling and ranges but without its words.

    ``limit`` is the one name under which that form surely limits the answer. ``DialectError`` 400 for what is no JSON object:
    what cannot be looked at is not passed where ranges must hold.
    """
    try:
        top: dict[str, msgspec.Raw] = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise DialectError(400, "the body must be a JSON object") from None
    changed = laid_over(persona, top)
    all_said = {**top, **changed}
    if not is_said(all_said.get(limit)):
        said = [all_said[name] for name in SPELLINGS["n_predict"] if is_said(all_said.get(name))]
        changed |= {limit: said[0]} if said else {}
    return msgspec.json.encode({**top, **changed}) if changed else body


def laid_over(persona: Persona, given: Mapping[str, object]) -> dict[str, object]:
    """The fields to be laid over ``given``, those of a request: values where it says nothing, and where it says too much."""
    under = sampling_under(persona, given)
    if not persona.clamps:
        return under
    return {**under, **clamping({**given, **under}, persona.clamps)}


def sampling_under(persona: Persona, given: Mapping[str, object]) -> dict[str, object]:
    """The persona's sampling where ``given``, request fields in the engine's names, says nothing."""
    return {
        name: value
        for name, value in persona.options.sampling.items()
        # no limit is the engine's own default
        if not any(is_said(given.get(spelling)) for spelling in SPELLINGS.get(name, (name,)))
        and not (name == "n_predict" and isinstance(value, int) and value <= 0)
    }


def _before(persona: Persona, *, has_system: bool) -> tuple[Message, ...]:
    if persona.system and not has_system:
        return (Message("system", persona.system), *persona.messages)
    return persona.messages
