"""What a Modelfile and a model's settings add to every request: words before it, values under it, ranges around it, a template."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import msgspec

from llamamgr.core.cards import ModelCard
from llamamgr.core.config import ModelConfig
from llamamgr.core.sampling import Range
from llamamgr.wire.errors import DialectError
from llamamgr.wire.gotemplate import Template, TemplateError, compiled
from llamamgr.wire.neutral import Message
from llamamgr.wire.ollama_options import Options, parse_options
from llamamgr.wire.template_answer import Marks, marks_of


class Persona(msgspec.Struct, frozen=True):
    """``system`` and ``messages`` begin a conversation; ``options`` hold where the request says nothing.

    ``template`` is the text of a Go template, "" = the file's own chat template. ``clamps`` are ranges that hold whoever says a
    value, by the engine's names.
    """

    system: str = ""
    messages: tuple[Message, ...] = ()
    options: Options = Options()
    template: str = ""
    clamps: Mapping[str, Range] = {}


NOBODY = Persona()


def persona_of(card: ModelCard) -> Persona:
    """Of a model that a Modelfile made; ``NOBODY`` for a plain file."""
    if not (card.system or card.messages or card.settings or card.template):
        return NOBODY
    messages = tuple(Message(role, content) for role, content in card.messages)
    return Persona(card.system, messages, _options(msgspec.json.encode(card.settings)), card.template)


def with_settings(persona: Persona, settings: ModelConfig) -> Persona:
    """``persona`` with what a model's settings say: their defaults come before a Modelfile's."""
    if not settings.shapes_requests:
        return persona
    former = persona.options
    options = Options({**former.sampling, **settings.defaults}, former.load, former.ignored)
    return msgspec.structs.replace(persona, options=options, clamps=settings.clamps)


@functools.lru_cache(maxsize=256)
def _options(settings: bytes) -> Options:
    """Values that mean nothing are passed over: another program may have written them."""
    sound = {}
    for name, value in msgspec.json.decode(settings).items():
        try:
            parse_options({name: value})
        except DialectError:
            continue
        sound[name] = value
    return parse_options(sound)


def begin(messages: tuple[Message, ...], persona: Persona) -> tuple[Message, ...]:
    """A conversation after the persona's own words; its system text gives way to the conversation's."""
    before = persona.messages
    if persona.system and not (messages and messages[0].role == "system"):
        before = (Message("system", persona.system), *before)
    return (*before, *messages)


def template_of(text: str, status: int = 400) -> Template:
    """``DialectError`` in Go's words when it cannot be parsed."""
    try:
        return compiled(text)
    except TemplateError as error:
        raise DialectError(status, str(error)) from None


@functools.lru_cache(maxsize=64)
def marks(text: str) -> Marks:
    """How a template marks thinking and calls."""
    return marks_of(compiled(text))
