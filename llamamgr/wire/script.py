"""A model's Go template at work: the prompt that a chat becomes, what the engine is asked for, and the reader of what comes back.

One for all dialects: they meet in ``ChatRequest`` before, and in neutral events behind.
"""

from __future__ import annotations

import datetime
from typing import Any

import msgspec

from llamamgr.core.cards import ModelCard
from llamamgr.wire.errors import DialectError
from llamamgr.wire.gotemplate import Template, TemplateError
from llamamgr.wire.neutral import ChatRequest, JsonSchema, Message, PromptRequest, Think
from llamamgr.wire.ollama_request import GenerateRequest, Inference
from llamamgr.wire.ollama_translate import full_name
from llamamgr.wire.persona import Persona, marks, template_of
from llamamgr.wire.placing import tagged
from llamamgr.wire.template_answer import TemplateAnswer

# the engine's names for one thing, the strongest first
_LIMITS = ("n_predict", "max_completion_tokens", "max_tokens")
# of its chat endpoint alone
_OF_CHATS = frozenset(
    {
        *("verbose", "reasoning_effort", "chat_template_kwargs", "parallel_tool_calls", "parse_tool_calls"),
        *("thinking_budget_tokens", "reasoning_format", "add_generation_prompt", "continue_final_message"),
    }
)
_NULL = (None, msgspec.Raw(b"null"))


class Script(msgspec.Struct, frozen=True):
    """``text`` is the template's; ``can_think`` tells whether the model thinks unless it is told not to."""

    text: str
    template: Template
    can_think: bool = False

    def prompt(self, chat: ChatRequest, now: int) -> str:
        """The prompt, with tags for media; ``now`` is nanoseconds since the epoch. ``DialectError`` when the template fails."""
        today = datetime.datetime.fromtimestamp(now // 10**9, datetime.UTC).date()
        dates = (today.isoformat(), (today - datetime.timedelta(days=1)).isoformat())
        turns, _ = tagged(_turns(chat))
        try:
            return self.template.prompt(turns, chat.tools, self._think(chat), dates)
        except TemplateError as error:
            raise DialectError(400, str(error)) from None
        except (msgspec.DecodeError, RecursionError) as error:
            raise DialectError(
                400, f"a tool or its arguments cannot be read: {error}", param="tools"
            ) from None

    def media(self, chat: ChatRequest) -> tuple[str, ...]:
        """Base64, by the numbers of the prompt's tags."""
        return tagged(_turns(chat))[1]

    def fill_in(self, prompt: str, suffix: str) -> str:
        """The prompt for what stands between two texts; ``DialectError`` when the template fails on it."""
        try:
            return self.template.fill_in(prompt, suffix)
        except TemplateError as error:
            raise DialectError(400, str(error)) from None

    def continuation(self, chat: ChatRequest, prompt: str) -> PromptRequest:
        """What the engine is asked for once ``chat`` has become ``prompt``.

        A call that must be made is one by a grammar: its JSON is all that the engine can write.
        """
        sampling = {
            name: value for name, value in chat.sampling.items() if name not in (*_LIMITS, *_OF_CHATS)
        }
        limit = next((value for name in _LIMITS if (value := chat.sampling.get(name)) not in _NULL), None)
        return PromptRequest(
            prompt=prompt,
            sampling=sampling if limit is None else {**sampling, "n_predict": limit},
            response_format=_one_call_of(chat.tools) if _is_forced(chat) else chat.response_format,
            logprobs=chat.logprobs,
            top_logprobs=chat.top_logprobs,
            media=self.media(chat),
        )

    def reader(self, chat: ChatRequest, prompt: str) -> TemplateAnswer:
        """Of the answer to ``prompt``."""
        names = [name for tool in chat.tools if (name := _name(tool))]
        known = marks(self.text)
        # a grammar holds from the first token on, so an answer in a format has no thoughts before it
        is_free = chat.response_format is None and not _is_forced(chat)
        return TemplateAnswer(
            msgspec.structs.replace(known, calls="{") if _is_forced(chat) else known,
            prompt=prompt,
            thinks=bool(self._think(chat)) and is_free,
            tools=names,
            most_calls=1 if _says_no(chat.sampling.get("parallel_tool_calls")) else None,
        )

    def _think(self, chat: ChatRequest) -> Think:
        """A model that can think does, unless told not to; how hard, when the request says it."""
        if not self.can_think or chat.think is False or isinstance(chat.think, str):
            return chat.think
        effort = chat.sampling.get("reasoning_effort")
        return effort if isinstance(effort, str) else True


def script_for(model: ModelCard, persona: Persona, *, template: str = "") -> Script | None:
    """By ``template`` or the persona's; None when the file's own chat template is to be applied, by the engine.

    ``DialectError`` for a template that cannot be parsed.
    """
    text = template or persona.template
    if not text:
        return None
    return Script(text, template_of(text), "thinking" in model.capabilities)


def check_tools(script: Script | None, chat: ChatRequest, model: ModelCard) -> None:
    """``DialectError`` 400 for tools that a Go template would leave out."""
    if script is not None and chat.tools and not script.template.can_call_tools:
        raise DialectError(400, f"{full_name(model.name)} does not support tools", param="tools")


def script_of(request: Inference, model: ModelCard, persona: Persona) -> Script | None:
    """As ``script_for``, for a request of Ollama's, which may bring a template of its own, or want none (``raw``)."""
    if not isinstance(request, GenerateRequest):
        return script_for(model, persona)
    if request.raw:
        return None
    script = script_for(model, persona, template=request.template)
    if script is not None and request.suffix and not script.template.can_insert:
        return None
    return script


def _turns(chat: ChatRequest) -> tuple[Message, ...]:
    return tuple(turn for turn in chat.messages if isinstance(turn, Message))


def _is_forced(chat: ChatRequest) -> bool:
    return chat.tool_choice == "required" and bool(chat.tools)


def _one_call_of(tools: tuple[msgspec.Raw, ...]) -> JsonSchema:
    """A call of any of ``tools`` as JSON, and nothing else."""
    forms: list[dict[str, Any]] = []
    shared: dict[str, dict[str, Any]] = {}
    for tool in tools:
        parameters = _declared(tool).get("parameters")
        schema = dict(parameters) if isinstance(parameters, dict) else {}
        for place in ("$defs", "definitions"):
            if isinstance(inner := schema.pop(place, None), dict):  # references are looked up at the root
                shared.setdefault(place, {}).update(inner)
        properties = {"name": {"const": _name(tool)}, "arguments": schema or {"type": "object"}}
        forms.append({"type": "object", "properties": properties, "required": ["name", "arguments"]})
    return JsonSchema(msgspec.Raw(msgspec.json.encode({"anyOf": forms, **shared})))


def _declared(tool: msgspec.Raw) -> dict[str, Any]:
    try:
        declared = msgspec.json.decode(tool, type=dict[str, Any]).get("function")
    except (msgspec.DecodeError, RecursionError):
        return {}
    return declared if isinstance(declared, dict) else {}


def _name(tool: msgspec.Raw) -> str:
    name = _declared(tool).get("name")
    return name if isinstance(name, str) else ""


def _says_no(value: object) -> bool:
    return value is False or (isinstance(value, msgspec.Raw) and bytes(value) == b"false")
