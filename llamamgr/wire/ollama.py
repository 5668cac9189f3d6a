"""Ollama's dialect in one place: requests, their translation, and answers.

A request's way: ``parse_generate`` or ``parse_chat`` → ``check_capabilities`` → ``to_chat_request`` or
``to_prompt_request`` → (engine) → ``Renderer``.
"""

from llamamgr.wire.errors import DialectError
from llamamgr.wire.ollama_answer import Kind, Renderer, error_body, load_answer, prompt_answer
from llamamgr.wire.ollama_options import LoadWishes, Options, parse_options, settle
from llamamgr.wire.ollama_request import (
    ChatBody,
    GenerateRequest,
    Inference,
    ShowRequest,
    model_not_found,
    parse_chat,
    parse_generate,
    parse_show,
)
from llamamgr.wire.ollama_translate import (
    check_capabilities,
    refusal,
    thinking,
    to_chat_request,
    to_prompt_request,
    turns,
)

# The release of Ollama whose API this is. Clients ask for one that is new enough: VS Code's Copilot Chat for 0.6.4.
API_VERSION = "0.32.14"

__all__ = [
    "API_VERSION",
    "ChatBody",
    "DialectError",
    "GenerateRequest",
    "Inference",
    "Kind",
    "LoadWishes",
    "Options",
    "Renderer",
    "ShowRequest",
    "check_capabilities",
    "error_body",
    "load_answer",
    "model_not_found",
    "parse_chat",
    "parse_generate",
    "parse_options",
    "parse_show",
    "prompt_answer",
    "refusal",
    "settle",
    "thinking",
    "to_chat_request",
    "to_prompt_request",
    "turns",
]
