"""Ollama's requests → neutral ones, and whether a model can do what they ask."""

from __future__ import annotations

from llamamgr.core.errors import InvalidNameError
from llamamgr.core.names import ModelName
from llamamgr.wire import golang
from llamamgr.wire.clamping import clamping
from llamamgr.wire.errors import DialectError
from llamamgr.wire.neutral import ChatRequest, Failed, Message, PromptRequest, Sampling, Think
from llamamgr.wire.ollama_options import settle
from llamamgr.wire.ollama_request import ChatBody, GenerateRequest, Inference
from llamamgr.wire.persona import NOBODY, Persona, begin

# what Ollama says where a prompt may be cut but the context not shifted
NOT_SHIFTED = (
    "the prompt is longer than the context length currently available to the model; shorten the prompt, adjust the context"
    " length in settings, or use a model with a longer context length"
)


def check_capabilities(request: Inference, capabilities: tuple[str, ...], name: str = "") -> None:
    """``DialectError`` 400 when the model cannot do what is asked; ``capabilities`` are Ollama's words.

    ``name`` is the model's own (the request's when empty). Of several faults the one is told that Ollama would tell: it looks for
    them in this order, and leaves images to the engine, which a load never reaches.
    """
    verb = "generate" if isinstance(request, GenerateRequest) else "chat"
    if isinstance(request, GenerateRequest) and request.raw and _shapes_prompt(request):
        raise DialectError(400, "raw mode does not support template, system, or context")
    if request.think and "thinking" not in capabilities:
        raise DialectError(400, f"{golang.quote(request.model.encode())} does not support thinking")
    if "completion" not in capabilities:
        raise DialectError(400, f"{golang.quote(request.model.encode())} does not support {verb}")
    if isinstance(request, GenerateRequest) and request.suffix and "insert" not in capabilities:
        raise DialectError(400, f"{full_name(name or request.model)} does not support insert")
    if isinstance(request, ChatBody) and request.tools and "tools" not in capabilities:
        raise DialectError(400, f"{full_name(name or request.model)} does not support tools")
    if request.images and not request.is_load and not {"vision", "audio"} & set(capabilities):
        raise DialectError(400, "Multimodal data provided, but model does not support multimodal requests.")


def _shapes_prompt(request: GenerateRequest) -> bool:
    return bool(request.template or request.system or request.context)


def full_name(name: str) -> str:
    """As Ollama spells it out: ``registry.ollama.ai/library/tiny:latest``."""
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


def refusal(request: Inference, failed: Failed) -> DialectError | None:
    """Ollama's own words for what the engine refused, where it has some."""
    is_too_long = failed.type == "exceed_context_size_error"
    return DialectError(400, NOT_SHIFTED) if is_too_long and request.truncate and not request.shift else None


def to_prompt_request(
    request: Inference, prompt: str, context: int, persona: Persona = NOBODY, media: tuple[str, ...] = ()
) -> PromptRequest:
    """For the engine's completion endpoint; ``prompt`` is a raw one, or what the model's template made, with tags for ``media``."""
    return PromptRequest(
        prompt=prompt,
        sampling=_sampling(request, context, persona),
        response_format=request.response_format,
        logprobs=request.logprobs,
        top_logprobs=request.top_logprobs if request.logprobs else 0,
        media=media,
    )
