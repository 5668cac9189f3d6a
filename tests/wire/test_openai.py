"""OpenAI's errors and lists of models."""

from __future__ import annotations

import json

import pytest

from llamamgr.wire import openai
from llamamgr.wire.openai import ModelEntry


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (404, "not_found_error"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (503, "api_error"),
    ],
)
def test_an_errors_type_follows_from_its_status(status: int, kind: str) -> None:
    assert json.loads(openai.error_body(status, "m", "p", "c")) == {
        "error": {"message": "m", "type": kind, "param": "p", "code": "c"}
    }


def test_an_error_in_a_stream_is_an_event() -> None:
    assert openai.stream_error("gone", 500) == b"data: " + openai.error_body(500, "gone") + b"\n\n"


def test_models_are_listed_as_ollama_does_with_what_there_is_to_know_besides() -> None:
    entry = ModelEntry("a:latest", 5.7, 4096, 99, "Q4_K_M", ("completion",), loaded=True)
    (told,) = json.loads(openai.models_answer([entry]))["data"]
    meta = told.pop("meta")
    assert told == {"id": "a:latest", "object": "model", "created": 5, "owned_by": "library"}
    assert meta == {
        "context_length": 4096,
        "capabilities": ["completion"],
        "loaded": True,
        "size": 99,
        "quantization": "Q4_K_M",
    }
    assert json.loads(openai.model_answer(entry))["id"] == "a:latest"
