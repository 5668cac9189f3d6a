"""One request by a Go template: the prompt it makes, and the reader of what comes back."""

from __future__ import annotations

import datetime
from typing import Any

import msgspec

from llamamgr.core.cards import ModelCard
from llamamgr.wire.errors import DialectError
from llamamgr.wire.gotemplate import Template, TemplateError
from llamamgr.wire.neutral import Think
from llamamgr.wire.ollama_request import ChatBody, GenerateRequest, Inference
from llamamgr.wire.ollama_translate import thinking, turns
from llamamgr.wire.persona import Persona, marks, template_of
from llamamgr.wire.template_answer import TemplateAnswer


class Script(msgspec.Struct, frozen=True):
    """``text`` is the template's; ``think`` what the model is told about thinking."""

    text: str
    template: Template
    think: Think

    def prompt(self, request: Inference, persona: Persona, now: int) -> str:
        """The prompt; ``now`` is nanoseconds since the epoch. ``DialectError`` when the template fails on this request."""
        today = datetime.datetime.fromtimestamp(now // 10**9, datetime.UTC).date()
        dates = (today.isoformat(), (today - datetime.timedelta(days=1)).isoformat())
        tools = request.tools if isinstance(request, ChatBody) else ()
        try:
            if isinstance(request, GenerateRequest) and request.suffix:
                return self.template.fill_in(request.prompt, request.suffix)
            return self.template.prompt(turns(request, persona), tools, self.think, dates)
        except TemplateError as error:
            raise DialectError(400, str(error)) from None

    def reader(self, request: Inference, prompt: str) -> TemplateAnswer:
        """Of the answer to ``prompt``."""
        tools = request.tools if isinstance(request, ChatBody) else ()
        names = [name for tool in tools if (name := _name(tool))]
        # a grammar holds from the first token on, so an answer in a format has no thoughts before it
        thinks = bool(self.think) and request.response_format is None
        return TemplateAnswer(marks(self.text), prompt=prompt, thinks=thinks, tools=names)


def script_of(request: Inference, model: ModelCard, persona: Persona) -> Script | None:
    """None when the file's own chat template is to be applied, by the engine.

    ``DialectError`` for a template of the request's that cannot be parsed, and for images, which only the engine can place.
    """
    text = persona.template
    if isinstance(request, GenerateRequest):
        if request.raw:
            return None
        text = request.template or text
    if not text:
        return None
    template = template_of(text)
    if request.images:
        if model.chat_template:
            return None
        raise DialectError(400, "images are not served by a Go template; create the model without TEMPLATE")
    if isinstance(request, GenerateRequest) and request.suffix and not template.can_insert:
        return None
    return Script(text, template, thinking(request, model.capabilities))


def _name(tool: msgspec.Raw) -> str:
    declared: Any = msgspec.json.decode(tool).get("function")
    name = declared.get("name") if isinstance(declared, dict) else None
    return name if isinstance(name, str) else ""
