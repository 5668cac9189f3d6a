"""llama-server's refusals as one plain sentence, and whose fault they are."""

from __future__ import annotations

import json

import msgspec
import pytest

from llamamgr.wire.engine_errors import error_of
from llamamgr.wire.neutral import Failed
from tests.wire.streams import body


def test_refusals_of_a_real_engine_become_one_plain_sentence() -> None:
    assert error_of(400, body("completion-refused")) == Failed(
        400,
        "request (3001 tokens) exceeds the available context size (256 tokens), try increasing it",
        "exceed_context_size_error",
    )
    assert "unrecognized type banana" in error_of(400, body("chat-refused")).message


@pytest.mark.parametrize(
    ("status", "answer", "message"),
    [
        (500, b"", "the engine answered 500 without a word"),
        (502, b"<html>\n bad  gateway", "<html> bad gateway"),
        (500, b'{"error":{}}', "the engine answered 500"),
        (500, b'{"error":"text"}', '{"error":"text"}'),
        (500, b'{"error":{"message":"\xff"}}', '{"error":{"message":"\ufffd"}}'),
    ],
)
def test_any_other_refusal_is_quoted(status: int, answer: bytes, message: str) -> None:
    assert error_of(status, answer) == Failed(status, message)


@pytest.mark.parametrize("kind", ["tools", "messages"])
def test_turns_and_tools_that_the_engine_cannot_read_are_the_clients_mistake(kind: str) -> None:
    said = f"Failed to parse {kind}: Unsupported type: x; {kind} = [\n  {{ secret }}\n]"
    answer = json.dumps({"error": {"code": 500, "message": said, "type": "server_error"}}).encode()
    plain = f"Failed to parse {kind}: Unsupported type: x"
    assert error_of(500, answer) == Failed(400, plain, "invalid_request_error", kind)
    other = json.dumps({"error": {"message": "out of memory", "type": "server_error"}}).encode()
    assert error_of(500, other).status == 500


@pytest.mark.parametrize(
    ("message", "status", "told"),
    [
        (
            "Failed to parse messages: [json.exception.type_error.302] type must be string, but is object",
            400,
            "Failed to parse messages: [json.exception.type_error.302] type must be string, but is object",
        ),
        (
            'Failed to parse tools: Missing tool type: {}; tools = [\n  {"secret": 1}\n]',
            400,
            "Failed to parse tools: Missing tool type: {}",
        ),
        ("Cannot use both json_schema and grammar", 400, "Cannot use both json_schema and grammar"),
        (
            "\n------------\nWhile executing CallExpression at line 1, column 9 in source:\n{{ raise_exception('…') }}\n"
            "Error: Jinja Exception: Conversation roles must alternate",
            400,
            "the model's chat template refuses this conversation: Conversation roles must alternate",
        ),
        ("Context size has been exceeded.", 500, "Context size has been exceeded."),
    ],
)
def test_a_mistake_of_the_clients_is_no_500_though_the_engine_says_so(
    message: str, status: int, told: str
) -> None:
    body = msgspec.json.encode({"error": {"code": 500, "message": message, "type": "server_error"}})
    failed = error_of(500, body)
    assert (failed.status, failed.message) == (status, told)


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (
            "Field 'temperature': [json.exception.type_error.302] type must be number, but is string",
            Failed(
                400,
                "Invalid type for 'temperature': expected a number, but got a string instead.",
                "invalid_request_error",
                "temperature",
                "invalid_type",
            ),
        ),
        (
            "Field 'n': Value must be between 1 <= value <= 4, but got 5",
            Failed(
                400,
                "Invalid value for 'n': Value must be between 1 <= value <= 4, but got 5",
                "invalid_request_error",
                "n",
                "invalid_value",
            ),
        ),
        (
            "unsupported content[].type",
            Failed(400, "unsupported content[].type", "invalid_request_error", "messages"),
        ),
        ("top_logprobs requires logprobs to be set to true", "top_logprobs"),
        ("logprobs is not supported with tools + stream", "logprobs"),
        ("something else about tools", None),
    ],
)
def test_the_field_that_the_engine_refuses_is_told_apart(message: str, told: Failed | str | None) -> None:
    answer = msgspec.json.encode(
        {"error": {"code": 400, "message": message, "type": "invalid_request_error"}}
    )
    failed = error_of(400, answer)
    assert told in (failed, failed.param)
