"""OpenAI's dialect: errors and the list of models. Requests and answers have a module for each endpoint.

``openai_chat`` and ``openai_relay`` pass chats on, ``openai_completions``, ``responses_*`` and ``embeddings``
translate, ``openai_tools`` reads ``tool_choice`` for all of them.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from llamamgr.wire import golang

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


class ModelEntry(msgspec.Struct, frozen=True):
    """A model in a list: ``created`` is seconds since the epoch, ``context`` tokens that a request gets, ``size`` bytes."""

    name: str
    created: float
    context: int = 0
    size: int = 0
    quant: str = ""
    capabilities: tuple[str, ...] = ()
    loaded: bool = False


def error_body(status: int, message: str, param: str | None = None, code: str | None = None) -> bytes:
    """The body of any error; its type follows from the status."""
    kind = _TYPES.get(status, "invalid_request_error" if 400 <= status < 500 else "api_error")
    return golang.encode({"error": {"message": message, "type": kind, "param": param, "code": code}})


def stream_error(message: str, status: int = 500) -> bytes:
    """An error inside a stream that has begun: its last event, after which the connection is to be cut."""
    return b"data: " + error_body(status, message) + b"\n\n"


def model_answer(model: ModelEntry) -> bytes:
    """``GET /v1/models/{name}``."""
    return golang.encode(_model(model))


def models_answer(models: Iterable[ModelEntry]) -> bytes:
    """``GET /v1/models``."""
    return golang.encode({"object": "list", "data": [_model(model) for model in models]})


def _model(model: ModelEntry) -> dict[str, object]:
    meta = {
        "context_length": model.context,
        "capabilities": model.capabilities,
        "loaded": model.loaded,
        "size": model.size,
        "quantization": model.quant,
    }
    plain = {"id": model.name, "object": "model", "created": int(model.created), "owned_by": "library"}
    return {**plain, "meta": meta}
