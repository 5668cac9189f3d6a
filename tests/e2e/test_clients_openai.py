"""The official OpenAI client against the running thing."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import openai
import pydantic
import pytest

from llamamgr.models import selftest
from tests.e2e.conftest import Daemon

pytestmark = pytest.mark.real
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"name": selftest.TOOL_NAME, "description": "the weather of a city", "parameters": SCHEMA}
OTHER = {"name": "other", "parameters": SCHEMA}
ASK: Any = [{"role": "user", "content": "hello"}]
PLAIN: Any = {"extra_body": {"chat_template_kwargs": {"enable_thinking": False}}}


def tools(*functions: dict[str, Any]) -> Any:
    return [{"type": "function", "function": function} for function in functions]


@pytest.fixture
def client(daemon: Daemon) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{daemon.url}/v1", api_key="unused", max_retries=0) as client:
        yield client


def test_chats_are_whole_or_streamed_with_reasoning_and_usage(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="selftest", messages=ASK, **PLAIN)
    assert (whole.choices[0].message.content, whole.model) == (selftest.ANSWER, "selftest")
    assert whole.usage is not None
    chunks = list(
        client.chat.completions.create(
            model="selftest",
            messages=ASK,
            stream=True,
            stream_options={"include_usage": True},
            reasoning_effort="low",
        )
    )
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert "".join(delta.content or "" for delta in deltas) == selftest.ANSWER
    for name in ("reasoning", "reasoning_content"):
        assert "".join(getattr(delta, name, "") or "" for delta in deltas) == selftest.THOUGHT
    assert chunks[-1].usage is not None


def test_a_named_tool_is_called_and_its_result_taken(client: openai.OpenAI) -> None:
    called = client.chat.completions.create(
        model="selftest",
        messages=ASK,
        tools=tools(OTHER, WEATHER),
        tool_choice={"type": "function", "function": {"name": selftest.TOOL_NAME}},
    )
    [call] = called.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert (call.function.name, json.loads(call.function.arguments)) == (
        selftest.TOOL_NAME,
        selftest.TOOL_ARGUMENTS,
    )
    result: Any = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    after = client.chat.completions.create(
        model="selftest", messages=[*ASK, called.choices[0].message, result], tools=tools(WEATHER), **PLAIN
    )
    assert after.choices[0].message.content == selftest.ANSWER


def test_with_none_no_tool_is_called(client: openai.OpenAI) -> None:
    told = client.chat.completions.create(
        model="selftest", messages=ASK, tools=tools(WEATHER), tool_choice="none", **PLAIN
    )
    assert told.choices[0].message.content == selftest.ANSWER


@pytest.mark.parametrize("streams", [False, True])
def test_functions_are_called_as_before_there_were_tools(client: openai.OpenAI, streams: bool) -> None:
    asked: Any = {"model": "selftest", "messages": ASK, "functions": [WEATHER], "stream": streams}
    told: Any = client.chat.completions.create(**asked)
    if streams:
        choices = [chunk.choices[0] for chunk in told]
        calls = [choice.delta.function_call for choice in choices if choice.delta.function_call]
        name, arguments = calls[0].name, "".join(call.arguments for call in calls)
        reason = choices[-1].finish_reason
    else:
        call, reason = told.choices[0].message.function_call, told.choices[0].finish_reason
        name, arguments = call.name, call.arguments
    assert (name, json.loads(arguments)) == (selftest.TOOL_NAME, selftest.TOOL_ARGUMENTS)
    assert reason == "function_call"
    called = {"role": "assistant", "content": None, "function_call": {"name": name, "arguments": arguments}}
    turns: Any = [*ASK, called, {"role": "function", "name": name, "content": "sunny"}]
    after = client.chat.completions.create(
        model="selftest", messages=turns, functions=[WEATHER], function_call="none", **PLAIN
    )
    assert after.choices[0].message.content == selftest.ANSWER


def test_a_custom_tool_is_called_with_a_text(client: openai.OpenAI) -> None:
    tool: Any = {"type": "custom", "custom": {"name": selftest.TOOL_NAME}}
    chosen: Any = {"type": "custom", "custom": {"name": selftest.TOOL_NAME}}
    asked: Any = {"model": "selftest", "messages": ASK, "tools": [tool], "tool_choice": chosen, **PLAIN}
    asked["parallel_tool_calls"] = False
    told = client.chat.completions.create(**asked)
    [call] = told.choices[0].message.tool_calls or []
    assert call.type == "custom"
    assert (call.custom.name, call.custom.input) == (selftest.TOOL_NAME, selftest.ANSWER)
    chunks = client.chat.completions.create(**asked, stream=True)
    pieces: Any = [one for chunk in chunks for one in chunk.choices[0].delta.tool_calls or ()]
    assert "".join(piece.custom["input"] for piece in pieces) == selftest.ANSWER
    result: Any = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    turns: Any = [*ASK, told.choices[0].message, result]
    after = client.chat.completions.create(model="selftest", messages=turns, tools=[tool], **PLAIN)
    assert after.choices[0].message.content == selftest.ANSWER


@pytest.mark.parametrize("top", [None, 0, 2])
def test_probabilities_come_with_as_many_rivals_as_were_asked_for(
    client: openai.OpenAI, top: int | None
) -> None:
    asked: Any = {"model": "selftest", "messages": ASK, "logprobs": True, **PLAIN}
    asked |= {} if top is None else {"top_logprobs": top}
    told = client.chat.completions.create(**asked)
    assert told.choices[0].logprobs is not None
    rows = told.choices[0].logprobs.content or []
    chunks = client.chat.completions.create(**asked, stream=True)
    streamed = [
        row for chunk in chunks for one in chunk.choices if one.logprobs for row in one.logprobs.content or ()
    ]
    assert "".join(row.token for row in streamed) == selftest.ANSWER
    assert [row.token for row in rows][: len(streamed)] == [row.token for row in streamed]
    assert {len(row.top_logprobs) for row in (*rows, *streamed)} == {top or 0}


class Report(pydantic.BaseModel):
    city: str


def test_an_answer_is_parsed_into_a_type(client: openai.OpenAI) -> None:
    parsed = client.chat.completions.parse(model="selftest", messages=ASK, response_format=Report)
    assert parsed.choices[0].message.parsed == Report(city=selftest.ANSWER)
    response = client.responses.parse(model="selftest", input="hello", text_format=Report)
    assert response.output_parsed == Report(city=selftest.ANSWER)


def test_prompts_are_completed_together(client: openai.OpenAI) -> None:
    told = client.completions.create(model="selftest", prompt=["a", "b"], n=2, max_tokens=3, logprobs=1)
    assert [choice.text for choice in told.choices] == ["Every llama here"] * 4
    assert told.choices[0].logprobs is not None
    assert told.choices[0].logprobs.tokens == ["Every", " llama", " here"]
    parts = client.completions.create(model="selftest", prompt="a", stream=True)
    assert "".join(part.choices[0].text for part in parts) == selftest.ANSWER


def test_embeddings_come_by_base64_and_as_numbers(client: openai.OpenAI) -> None:
    packed = client.embeddings.create(
        model="tinyembed", input=["hello", "world"]
    )  # the client asks for base64
    plain = client.embeddings.create(model="tinyembed", input=["hello", "world"], encoding_format="float")
    for row, other in zip(packed.data, plain.data, strict=True):
        assert row.embedding == pytest.approx(other.embedding)
    assert len(client.embeddings.create(model="tinyembed", input="a", dimensions=16).data[0].embedding) == 16


def test_models_are_listed_and_found(client: openai.OpenAI) -> None:
    names = {model.id for model in client.models.list()}
    assert {"selftest:latest", "tinychat:latest", "tinyembed:latest"} <= names
    assert (
        client.models.retrieve("registry.ollama.ai/library/selftest").id
        == "registry.ollama.ai/library/selftest"
    )


def test_responses_are_whole_streamed_gone_on_from_and_forgotten(client: openai.OpenAI) -> None:
    first = client.responses.create(model="selftest", input="hello", reasoning={"effort": "none"})
    assert (first.output_text, first.status) == (selftest.ANSWER, "completed")
    on = client.responses.create(model="selftest", input="more", previous_response_id=first.id)
    assert on.usage is not None
    assert first.usage is not None
    assert on.usage.input_tokens > first.usage.input_tokens
    assert client.responses.retrieve(first.id).output_text == selftest.ANSWER
    client.responses.delete(first.id)
    with pytest.raises(openai.BadRequestError, match="not found"):
        client.responses.create(model="selftest", input="more", previous_response_id=first.id)


def test_a_responses_items_are_listed_and_counted_and_it_cannot_be_cancelled(client: openai.OpenAI) -> None:
    first = client.responses.create(model="selftest", input="hello", reasoning={"effort": "none"})
    counted = client.responses.input_tokens.count(
        model="selftest", input="hello", reasoning={"effort": "none"}
    )
    assert first.usage is not None
    assert (counted.object, counted.input_tokens) == ("response.input_tokens", first.usage.input_tokens)
    on = client.responses.create(model="selftest", input="more", previous_response_id=first.id)
    items: list[Any] = list(client.responses.input_items.list(on.id, order="asc", limit=1))
    assert [(item.role, item.content[0].text) for item in items] == [
        ("user", "hello"),
        ("assistant", selftest.ANSWER),
        ("user", "more"),
    ]
    meant: Any = [{"type": "item_reference", "id": item.id} for item in items]
    again = client.responses.input_tokens.count(model="selftest", input=meant)
    assert on.usage is not None
    assert again.input_tokens == on.usage.input_tokens
    with pytest.raises(openai.BadRequestError, match="background"):
        client.responses.cancel(first.id)
    with pytest.raises(openai.NotFoundError, match="not found"):
        client.responses.cancel("resp_0")


def test_a_streamed_response_ends_as_the_whole_one(client: openai.OpenAI) -> None:
    with client.responses.stream(
        model="selftest", input="hello", reasoning={"effort": "low", "summary": "auto"}
    ) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"
    assert "response.reasoning_summary_text.delta" in kinds
    assert final.output_text == selftest.ANSWER


def test_a_streamed_response_tells_its_thoughts_and_the_probabilities_of_its_words(
    client: openai.OpenAI,
) -> None:
    with client.responses.stream(
        model="selftest",
        input="hello",
        reasoning={"effort": "low"},
        include=["message.output_text.logprobs"],
        top_logprobs=2,
    ) as stream:
        events = list(stream)
    thought = "".join(event.delta for event in events if event.type == "response.reasoning_text.delta")
    rows = [row for event in events if event.type == "response.output_text.delta" for row in event.logprobs]
    assert thought == selftest.THOUGHT
    assert "".join(row.token for row in rows) == selftest.ANSWER
    assert {len(row.top_logprobs or ()) for row in rows} == {2}
    function: Any = {"type": "function", "strict": False, **WEATHER}
    allowed: Any = {
        "type": "allowed_tools",
        "mode": "auto",
        "tools": [{"type": "function", "name": WEATHER["name"]}],
    }
    called = client.responses.create(
        model="selftest", input="hello", tools=[function], tool_choice=allowed, top_logprobs=2
    )
    assert "function_call" in [item.type for item in called.output]


def test_a_response_calls_a_function_and_takes_its_result(client: openai.OpenAI) -> None:
    function: Any = {"type": "function", "strict": False, **WEATHER}
    called = client.responses.create(model="selftest", input="hello", tools=[function])
    [call] = [item for item in called.output if item.type == "function_call"]
    assert json.loads(call.arguments) == selftest.TOOL_ARGUMENTS
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    after = client.responses.create(
        model="selftest", input=[result], tools=[function], previous_response_id=called.id
    )
    assert after.output_text == selftest.ANSWER


def test_a_response_calls_a_custom_tool_with_a_text(client: openai.OpenAI) -> None:
    tool: Any = {"type": "custom", "name": selftest.TOOL_NAME}
    asked: Any = {"tools": [tool], "parallel_tool_calls": False}
    with client.responses.stream(model="selftest", input="hello", **asked) as stream:
        kinds = [event.type for event in stream]
        told = stream.get_final_response()
    [call] = [item for item in told.output if item.type == "custom_tool_call"]
    assert call.input == selftest.ANSWER
    assert "response.custom_tool_call_input.done" in kinds
    result: Any = {"type": "custom_tool_call_output", "call_id": call.call_id, "output": "sunny"}
    after = client.responses.create(
        model="selftest", input=[result], tools=[tool], previous_response_id=told.id
    )
    assert after.output_text == selftest.ANSWER


def test_a_response_cut_by_its_limit_is_incomplete(client: openai.OpenAI) -> None:
    told = client.responses.create(
        model="selftest", input="hello", max_output_tokens=2, reasoning={"effort": "none"}
    )
    assert told.status == "incomplete"
    assert told.incomplete_details is not None
    assert told.incomplete_details.reason == "max_output_tokens"


def test_errors_have_their_classes_codes_and_params(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="nope", messages=ASK)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as bad:
        client.chat.completions.create(model="selftest", messages=[])
    assert bad.value.param == "messages"
    with pytest.raises(openai.BadRequestError) as long:
        client.chat.completions.create(
            model="selftest", messages=[{"role": "user", "content": "a" * 200_000}]
        )
    assert long.value.code == "context_length_exceeded"


def test_a_killed_engine_is_an_error_in_the_stream_and_never_its_end(
    client: openai.OpenAI, daemon: Daemon
) -> None:
    endless: Any = [{"role": "user", "content": selftest.ENDLESS_PROMPT}]
    stream = client.chat.completions.create(model="selftest", messages=endless, stream=True)
    next(stream)
    os.kill(daemon.children()[0]["pid"], signal.SIGKILL)
    with pytest.raises(openai.APIError, match="SIGKILL"):
        list(stream)
