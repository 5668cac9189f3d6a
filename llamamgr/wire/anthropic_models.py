"""Anthropic's list of models: what each can do, in the terms of its Models API.

What its servers do themselves (batches, citations, code, searches, context editing, PDF) no model here can.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

_NO = {"supported": False}


class ModelEntry(msgspec.Struct, frozen=True):
    """``created`` is RFC 3339; ``context`` tokens that a request gets, 0 for unknown; ``capabilities`` are Ollama's words."""

    name: str
    created: str
    context: int = 0
    capabilities: tuple[str, ...] = ()


def models_answer(models: Sequence[ModelEntry], has_more: bool) -> bytes:
    """``GET /v1/models``."""
    ends = {"first_id": models[0].name if models else None, "last_id": models[-1].name if models else None}
    return msgspec.json.encode({"data": [_model(model) for model in models], "has_more": has_more, **ends})


def model_answer(model: ModelEntry) -> bytes:
    """``GET /v1/models/{name}``."""
    return msgspec.json.encode(_model(model))


def _model(model: ModelEntry) -> dict[str, Any]:
    return {
        "type": "model",
        "id": model.name,
        "display_name": model.name,
        "created_at": model.created,
        "lifecycle": "active",
        "deprecated_at": None,
        "retires_at": None,
        "line": None,
        "max_input_tokens": model.context or None,
        "max_tokens": model.context or None,
        "capabilities": _capabilities(model.capabilities),
    }


def _capabilities(known: Sequence[str]) -> dict[str, Any]:
    speaks, thinks = {"supported": "completion" in known}, {"supported": "thinking" in known}
    types = {"adaptive": thinks, "enabled": thinks, "disabled": speaks, "between_tools": speaks}
    levels = dict.fromkeys(("low", "medium", "high", "xhigh", "max"), thinks)
    return {
        "batch": _NO,
        "citations": _NO,
        "code_execution": _NO,
        "context_management": _NO,
        "effort": {**thinks, **levels},
        "image_input": {"supported": "vision" in known},
        "pdf_input": _NO,
        "server_tools": {**_NO, "code_execution": _NO, "web_search": _NO},
        "structured_outputs": speaks,
        "thinking": {**thinks, "types": types},
    }
