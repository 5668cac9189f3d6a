"""Anthropic's dialect in one place: ``parse_messages`` → (engine) → ``Renderer``."""

from llamamgr.wire.anthropic_answer import (
    Renderer,
    count_answer,
    error_body,
    stream_error,
)
from llamamgr.wire.anthropic_models import ModelEntry, model_answer, models_answer
from llamamgr.wire.anthropic_request import MessagesRequest, parse_count, parse_messages
from llamamgr.wire.anthropic_turns import NO_IMAGE

__all__ = [
    "NO_IMAGE",
    "MessagesRequest",
    "ModelEntry",
    "Renderer",
    "count_answer",
    "error_body",
    "model_answer",
    "models_answer",
    "parse_count",
    "parse_messages",
    "stream_error",
]
