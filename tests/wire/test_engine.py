"""Calls to llama-server: what is written into them, and what is read from the short answers."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from llamamgr.wire import engine
from llamamgr.wire.engine import EngineCall
from llamamgr.wire.errors import ProtocolError
from llamamgr.wire.neutral import ChatRequest, JsonObject, JsonSchema, Message, PromptRequest, ToolCall
from tests.wire.streams import body

HI = (Message("user", "hi"),)
SCHEMA = JsonSchema(msgspec.Raw(b'{"type":"object","$defs":{"a":{"minimum":1}}}'))
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgAAACAAAB4iG8MwAAAABJRU5ErkJggg=="


def said(call: EngineCall) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(call.body)
    return decoded


def test_a_chat_is_always_a_stream_with_usage() -> None:
    call = engine.chat_call(ChatRequest(HI, sampling={"temperature": 0.5, "stream": False}))
    assert (call.method, call.path) == ("POST", "/v1/chat/completions")
    assert said(call) == {
        "temperature": 0.5,
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_a_completion_does_not_ask_for_its_prompt_again() -> None:
    call = engine.completion_call(PromptRequest("once", sampling={"n_predict": 3}))
    wanted = said(call)
    assert (call.path, wanted["prompt"], wanted["n_predict"]) == ("/completion", "once", 3)
    assert wanted["stream"] is True
    assert {"content", "stop", "stop_type", "timings"} <= set(wanted["response_fields"])
    assert "prompt" not in wanted["response_fields"]


def test_tools_go_out_as_they_came_in() -> None:
    tool = b'{"type":"function","function":{"name":"f","parameters":{"$ref":"#/x","default":1.50}}}'
    call = engine.chat_call(ChatRequest(HI, tools=(msgspec.Raw(tool),), tool_choice="required"))
    assert tool in call.body
    assert said(call)["tool_choice"] == "required"


def test_formats_are_said_where_the_engine_reads_them() -> None:
    schema = json.loads(bytes(SCHEMA.schema))
    chat = [said(engine.chat_call(ChatRequest(HI, response_format=kind))) for kind in (JsonObject(), SCHEMA)]
    assert chat[0]["response_format"] == {"type": "json_object"}
    assert chat[1]["response_format"]["json_schema"]["schema"] == schema
    prompt = [
        said(engine.completion_call(PromptRequest("p", response_format=kind)))
        for kind in (JsonObject(), SCHEMA)
    ]
    assert prompt[0]["json_schema"] == {"type": "object"}
    assert prompt[1]["json_schema"] == schema
    assert said(engine.completion_call(PromptRequest("p", grammar="root ::= x")))["grammar"] == "root ::= x"


def test_log_probabilities_ask_for_one_alternative_at_least() -> None:
    chat = engine.chat_call(ChatRequest(HI, logprobs=True))
    assert (said(chat)["logprobs"], said(chat)["top_logprobs"], chat.top_logprobs) == (True, 1, 0)
    offered = engine.chat_call(ChatRequest(HI, tools=(msgspec.Raw(b"{}"),), logprobs=True))
    assert "logprobs" not in said(offered), "llama-server refuses to stream both"
    prompt = engine.completion_call(PromptRequest("p", logprobs=True, top_logprobs=5))
    assert (said(prompt)["n_probs"], prompt.top_logprobs) == (5, 5)
    assert "n_probs" not in said(engine.completion_call(PromptRequest("p")))


@pytest.mark.parametrize(
    ("think", "wanted"),
    [
        (None, None),
        (True, {"enable_thinking": True}),
        (False, {"enable_thinking": False}),
        ("high", {"enable_thinking": True, "reasoning_effort": "high"}),
    ],
)
def test_thinking_is_an_argument_of_the_template(think: bool | str | None, wanted: object) -> None:
    assert said(engine.chat_call(ChatRequest(HI, think=think))).get("chat_template_kwargs") == wanted
    assert said(engine.apply_template_call(HI, think)).get("chat_template_kwargs") == wanted


def test_all_parts_of_a_turn_are_said() -> None:
    turns = (
        Message("user", "look", images=(PNG, "UklGRiQAAABXQVZFZm10IA==", "/9j/4AAQSkZJRg==")),
        Message(
            "assistant", thinking="hm", tool_calls=(ToolCall("c1", "f", '{"a":1}'), ToolCall("", "g", "{}"))
        ),
        Message("tool", "42", tool_name="f", tool_call_id="c1"),
    )
    look, call, result = said(engine.chat_call(ChatRequest(turns)))["messages"]
    assert [part["type"] for part in look["content"]] == ["text", "image_url", "input_audio", "image_url"]
    assert look["content"][1]["image_url"]["url"] == f"data:image/png;base64,{PNG}"
    assert look["content"][2]["input_audio"]["format"] == "wav"
    assert look["content"][3]["image_url"]["url"].startswith("data:image/jpeg;base64,/9j/")
    assert call == {
        "role": "assistant",
        "content": "",
        "reasoning_content": "hm",
        "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
            {"type": "function", "function": {"name": "g", "arguments": "{}"}},
        ],
    }
    assert result == {"role": "tool", "content": "42", "name": "f", "tool_call_id": "c1"}


def test_the_short_answers_of_a_real_engine_are_read() -> None:
    assert engine.read_prompt(body("apply-template")) == "<|user|>hi</s><|assistant|>"
    assert engine.read_tokens(body("tokenize")) == (259, 107, 108, 2, 260)
    assert engine.read_content(body("detokenize")) == "H<|assistant|>"


@pytest.mark.parametrize("answer", [b"", b"[]", b'{"prompt":5}', b'{"prompt":"\xff"}', b"[" * 100_000])
def test_a_short_answer_that_cannot_be_read_is_a_protocol_error(answer: bytes) -> None:
    with pytest.raises(ProtocolError, match="cannot be read"):
        engine.read_prompt(answer)


def test_tokens_are_counted_with_control_tokens_as_such() -> None:
    assert said(engine.tokenize_call("x")) == {"content": "x", "add_special": False, "parse_special": True}
    assert said(engine.detokenize_call((1, 2))) == {"tokens": [1, 2]}
