"""A model's Go template holds in every dialect, over a real llama-server.

The self-test model's answers tell which prompt it got.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from llamamgr.models import selftest
from tests.contract.conftest import real_binary
from tests.proxy.conftest import HI, Front, MakeFront
from tests.proxy.test_models import made

pytestmark = pytest.mark.real

# the file's own template never makes this model count
COUNTING = "{{ range .Messages }}<|{{ .Role }}|>{{ .Content }}</s>{{ end }}<|assistant_counts|>"
NUMBERS = " one two three four"
FULL = (
    '{{ $last := "" }}{{ range .Messages }}{{ $last = .Role }}<|{{ .Role }}|>'
    "{{ if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}{{ .Content }}"
    '{{ if .ToolCalls }}<tool_call>{{ range .ToolCalls }}{"name": "{{ .Function.Name }}"}{{ end }}{{ end }}</s>{{ end }}'
    '{{ if and .Tools (ne $last "tool") }}<|assistant_calls|>'
    "{{ else if .Think }}<|assistant_ponders|>{{ else }}<|assistant|>{{ end }}"
)
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"name": selftest.TOOL_NAME, "parameters": SCHEMA}
TOOLS = [{"type": "function", "function": WEATHER}]
MAX = {"max_tokens": 64}


@pytest.fixture
async def front(make_front: MakeFront, request: pytest.FixtureRequest) -> AsyncIterator[Front]:
    async with make_front(binary=real_binary(request)) as front:
        yield front


async def events(front: Front, path: str, **body: Any) -> list[Any]:
    """The data of a stream's events; OpenAI's last one is no JSON."""
    async with front.post(path, {"stream": True, **body}) as answer:
        assert answer.status == 200, await answer.read()
        assert answer.headers["Content-Type"] == "text/event-stream"
        lines = [line[6:] for line in (await answer.read()).splitlines() if line.startswith(b"data: ")]
    return [line if line == b"[DONE]" else json.loads(line) for line in lines]


def text_of(path: str, answer: Any) -> str:
    match path:
        case "/api/chat":
            return str(answer["message"]["content"])
        case "/api/generate":
            return str(answer["response"])
        case "/v1/chat/completions":
            return str(answer["choices"][0]["message"]["content"])
        case "/v1/messages":
            return "".join(block.get("text", "") for block in answer["content"])
        case _:
            parts = [part for item in answer["output"] for part in item.get("content", ())]
            return "".join(part["text"] for part in parts if part["type"] == "output_text")


def asking(path: str, prompt: str = "hi") -> dict[str, Any]:
    said = [{"role": "user", "content": prompt}]
    match path:
        case "/api/generate":
            return {"prompt": prompt}
        case "/v1/responses":
            return {"input": prompt}
        case "/v1/messages":
            return {"messages": said, "max_tokens": 4}
    return {"messages": said}


PATHS = ("/api/chat", "/api/generate", "/v1/chat/completions", "/v1/messages", "/v1/responses")


@pytest.mark.parametrize("path", PATHS)
async def test_the_template_and_the_parameters_hold_in_every_dialect(front: Front, path: str) -> None:
    await made(front, "m", **{"from": "selftest"}, template=COUNTING, parameters={"num_predict": 4})
    status, answer = await front.whole(path, model="m", **asking(path))
    assert (status, text_of(path, answer)) == (200, NUMBERS), answer


@pytest.mark.parametrize("path", PATHS)
async def test_words_of_the_modelfile_stand_before_the_conversation(front: Front, path: str) -> None:
    said = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    await made(front, "m", **{"from": "selftest"}, template=FULL, system="S", messages=said)
    await made(front, "plain", **{"from": "selftest"}, template=FULL)

    async def tokens(model: str, **body: Any) -> int:
        answer = (await front.whole(path, model=model, **body))[1]
        usage = answer.get("usage", answer)
        names = ("prompt_eval_count", "prompt_tokens", "input_tokens")
        return int(next(usage[name] for name in names if name in usage))

    body = asking(path, "S</s><|user|>q</s><|assistant|>a</s><|user|>hi")
    # the same words in one turn, whose first token names another role
    assert await tokens("m", **asking(path)) == await tokens("plain", **body)


async def test_a_chat_of_openais_is_whole_or_streamed_alike(front: Front) -> None:
    await made(front, "m", **{"from": "selftest"}, template=FULL)
    body = {"model": "m", "messages": HI, "reasoning_effort": "low", **MAX}
    _, whole = await front.whole("/v1/chat/completions", **body)
    [choice] = whole["choices"]
    assert choice["message"]["content"] == selftest.ANSWER
    assert choice["message"]["reasoning_content"] == choice["message"]["reasoning"] == selftest.THOUGHT
    assert (choice["finish_reason"], whole["object"], whole["model"]) == ("stop", "chat.completion", "m")
    *chunks, done = await events(
        front, "/v1/chat/completions", stream_options={"include_usage": True}, **body
    )
    assert done == b"[DONE]"
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]
    assert deltas[0] == {"role": "assistant", "content": None}
    assert "".join(delta.get("content") or "" for delta in deltas) == selftest.ANSWER
    assert "".join(delta.get("reasoning_content") or "" for delta in deltas) == selftest.THOUGHT
    assert len(deltas) > 6
    usage = {name: count for name, count in whole["usage"].items() if name.endswith("_tokens")}
    assert {name: chunks[-1]["usage"][name] for name in usage} == usage
    assert usage["prompt_tokens"] and usage["completion_tokens"]


async def test_without_an_effort_a_model_that_can_think_does_and_with_none_it_does_not(front: Front) -> None:
    await made(front, "m", **{"from": "selftest"}, template=FULL)
    for more, thought in (({}, True), ({"reasoning_effort": "none"}, False)):
        _, answer = await front.whole("/v1/chat/completions", model="m", messages=HI, **MAX, **more)
        assert ("reasoning" in answer["choices"][0]["message"]) is thought


@pytest.mark.parametrize(
    "choice", ["auto", "required", {"type": "function", "function": {"name": "get_weather"}}]
)
async def test_a_tool_is_called_and_its_result_taken_by_openais_chat(front: Front, choice: Any) -> None:
    await made(front, "m", **{"from": "selftest"}, template=FULL)
    body = {"model": "m", "messages": HI, "tools": TOOLS, "tool_choice": choice, **MAX}
    _, whole = await front.whole("/v1/chat/completions", **body)
    [called] = whole["choices"]
    [call] = called["message"]["tool_calls"]
    assert (called["finish_reason"], called["message"]["content"]) == ("tool_calls", None)
    assert call["id"].startswith("call_") and call["function"]["name"] == selftest.TOOL_NAME
    arguments = json.loads(call["function"]["arguments"])
    assert arguments.keys() == {"city"}
    chunks = await events(front, "/v1/chat/completions", **body)
    [streamed] = [one for chunk in chunks[:-1] for one in chunk["choices"][0]["delta"].get("tool_calls", ())]
    assert streamed["function"] == call["function"]
    assert chunks[-2]["choices"][0]["finish_reason"] == "tool_calls"
    turns = [*HI, called["message"], {"role": "tool", "tool_call_id": call["id"], "content": "sunny"}]
    _, after = await front.whole("/v1/chat/completions", **{**body, "messages": turns, "tool_choice": "auto"})
    assert after["choices"][0]["message"]["content"] == selftest.ANSWER


async def test_calls_that_are_read_here_have_a_line_of_their_own_on_ollamas_chat(front: Front) -> None:
    await made(front, "m", **{"from": "selftest"}, template=FULL)
    *_, calling, last = await front.lines("/api/chat", model="m", messages=HI, tools=TOOLS)
    [call] = calling["message"]["tool_calls"]
    assert not calling["done"] and list(calling) == ["model", "created_at", "message", "done"]
    assert re.fullmatch("call_[a-z0-9]{8}", call["id"]) and call["function"]["name"] == selftest.TOOL_NAME
    assert last["done"] and last["message"] == {"role": "assistant", "content": ""}
    _, whole = await front.whole("/api/chat", model="m", messages=HI, tools=TOOLS)
    [told] = whole["message"]["tool_calls"]
    assert told["id"] != call["id"] and told["function"] == call["function"]


async def test_tools_are_called_by_messages_and_responses_too(front: Front) -> None:
    await made(front, "m", **{"from": "selftest"}, template=FULL)
    tool = {"name": selftest.TOOL_NAME, "input_schema": SCHEMA}
    _, message = await front.whole("/v1/messages", model="m", messages=HI, tools=[tool], **MAX)
    [block] = message["content"]
    assert (block["type"], block["input"], message["stop_reason"]) == (
        "tool_use",
        selftest.TOOL_ARGUMENTS,
        "tool_use",
    )
    _, response = await front.whole(
        "/v1/responses", model="m", input="hi", tools=[{"type": "function", **WEATHER}]
    )
    [item] = response["output"]
    assert (item["type"], json.loads(item["arguments"])) == ("function_call", selftest.TOOL_ARGUMENTS)


async def test_messages_streams_with_the_real_size_of_the_prompt_and_counts_the_same(front: Front) -> None:
    await made(front, "m", **{"from": "selftest"}, template=FULL)
    start, *_, delta, stop = await events(front, "/v1/messages", model="m", messages=HI, **MAX)
    tokens = start["message"]["usage"]["input_tokens"]
    assert (delta["usage"]["input_tokens"], stop["type"]) == (tokens, "message_stop")
    _, counted = await front.whole("/v1/messages/count_tokens", model="m", messages=HI)
    assert counted == {"input_tokens": tokens}
    thinking = {"type": "enabled", "budget_tokens": 32}
    _, thought = await front.whole("/v1/messages", model="m", messages=HI, thinking=thinking, **MAX)
    assert [block["type"] for block in thought["content"]] == ["thinking", "text"]


async def test_a_stop_sequence_is_told_and_a_prefill_is_gone_on_from(front: Front) -> None:
    await made(front, "m", **{"from": "selftest"}, template=FULL)
    _, answer = await front.whole("/v1/messages", model="m", messages=HI, stop_sequences=[" fed"], **MAX)
    assert (answer["stop_reason"], answer["stop_sequence"]) == ("stop_sequence", " fed")
    assert text_of("/v1/messages", answer) == "Every llama here is"
    # what the engine says goes on from the start, even where it begins like it
    goes_on = "{{ range .Messages }}{{ if eq .Role `assistant` }}{{ .Content }}{{ end }}{{ end }}"
    await made(front, "on", **{"from": "selftest"}, template=goes_on)
    started = [*HI, {"role": "assistant", "content": "Every llama"}]
    _, answer = await front.whole("/v1/messages", model="on", messages=started, **MAX)
    assert text_of("/v1/messages", answer) == selftest.ANSWER


async def test_probabilities_a_format_and_the_engines_own_extras_pass(front: Front) -> None:
    await made(front, "m", **{"from": "selftest"}, template=FULL)
    body = {"model": "m", "messages": HI, "reasoning_effort": "none", **MAX}
    _, answer = await front.whole("/v1/chat/completions", logprobs=True, top_logprobs=2, **body)
    told = answer["choices"][0]["logprobs"]["content"]
    assert "".join(one["token"] for one in told).strip() == selftest.ANSWER
    assert {len(one["top_logprobs"]) for one in told} == {2}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
    _, answer = await front.whole("/v1/chat/completions", response_format=wanted, **body)
    assert json.loads(answer["choices"][0]["message"]["content"]).keys() == {"city"}
    _, answer = await front.whole("/v1/chat/completions", grammar='root ::= "ready"', **body)
    assert answer["choices"][0]["message"]["content"] == "ready"


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({"n": 2}, "n", "n other than 1 is not served by a Go template"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs", "top_logprobs must be between 0 and 20"),
        ({"tools": [1]}, "tools", "a tool or its arguments cannot be read"),
    ],
)
async def test_what_a_template_cannot_serve_is_refused(
    front: Front, body: dict[str, Any], param: str, message: str
) -> None:
    await made(front, "m", **{"from": "selftest"}, template=FULL)
    status, answer = await front.whole("/v1/chat/completions", **{"model": "m", "messages": HI, **body})
    assert (status, answer["error"]["param"]) == (400, param)
    assert answer["error"]["message"].startswith(message)


async def test_a_conversation_that_is_too_long_for_ollamas_chat_loses_its_oldest_turns(front: Front) -> None:
    await made(front, "m", **{"from": "selftest"}, template=FULL)
    turns = [{"role": "user", "content": "word " * 200} for _ in range(20)]
    status, answer = await front.whole("/api/chat", model="m", messages=[*turns, *HI], think=False)
    assert (status, answer["message"]["content"]) == (200, selftest.ANSWER)


@pytest.mark.parametrize("path", [path for path in PATHS if path != "/api/generate"])
async def test_tools_that_the_template_would_leave_out_are_refused(front: Front, path: str) -> None:
    await made(front, "m", **{"from": "selftest"}, template="{{ .System }}{{ .Prompt }}")
    schema = {"type": "object", "properties": {}}
    named = {"name": "f", "parameters": schema}
    tools: dict[str, Any] = {
        "/v1/messages": [{"name": "f", "input_schema": schema}],
        "/v1/responses": [{"type": "function", **named}],
    }
    offered = tools.get(path, [{"type": "function", "function": named}])
    status, told = await front.whole(path, model="m", tools=offered, **asking(path))
    error = told["error"]
    message = error if isinstance(error, str) else error["message"]
    assert (status, message) == (400, "registry.ollama.ai/library/m:latest does not support tools")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
async def test_an_effort_of_a_model_that_cannot_think_is_refused_as_ollama_does(
    front: Front, path: str
) -> None:
    effort: dict[str, Any] = {"reasoning": {"effort": "low"}}
    status, told = await front.whole(path, model="tinychat", **asking(path), **effort)
    assert (status, told["error"]["message"]) == (400, '"tinychat" does not support thinking')
    assert told["error"]["param"] == "reasoning.effort"
    effort["reasoning"]["effort"] = "none"
    assert (await front.whole(path, model="tinychat", **asking(path), **effort))[0] == 200
