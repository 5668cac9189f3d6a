"""The official Python clients against the running thing."""

from __future__ import annotations

import asyncio
import math

import ollama
import openai
import pydantic
import pytest

from llamamgr.models import selftest
from tests.e2e.conftest import Daemon

pytestmark = pytest.mark.real
WEATHER = {
    "type": "function",
    "function": {
        "name": selftest.TOOL_NAME,
        "description": "the weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def ask(text: str = "hello") -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_the_ollama_client_chats_streams_generates_lists_shows_and_unloads(daemon: Daemon):
    client = ollama.Client(host=daemon.url)
    assert client.chat("selftest", ask()).message.content == selftest.ANSWER
    assert (
        "".join(part.message.content or "" for part in client.chat("selftest", ask(), stream=True))
        == selftest.ANSWER
    )
    assert client.generate("selftest", "hello").response == selftest.ANSWER
    assert {model.model for model in client.list().models} == {
        "selftest:latest",
        "tinychat:latest",
        "tinyembed:latest",
    }
    shown = client.show("selftest")
    assert {"completion", "tools", "thinking"} <= set(shown.capabilities or [])
    assert [model.model for model in client.ps().models] == ["selftest:latest"]
    assert client.generate("selftest", keep_alive=0).done_reason == "unload"
    client._client.close()


def test_the_ollama_client_calls_tools_and_thinks(daemon: Daemon):
    client = ollama.Client(host=daemon.url)
    [call] = client.chat("selftest", ask(), tools=[WEATHER]).message.tool_calls or []
    assert call.function.name == selftest.TOOL_NAME
    assert "city" in call.function.arguments
    thought = client.chat("selftest", ask(), think=True).message
    assert (thought.thinking, thought.content) == (selftest.THOUGHT, selftest.ANSWER)
    client._client.close()


async def test_the_asynchronous_ollama_client_does_the_same(daemon: Daemon):
    client = ollama.AsyncClient(host=daemon.url)
    assert (await client.chat("selftest", ask())).message.content == selftest.ANSWER
    parts = [part async for part in await client.chat("selftest", ask(), think=True, stream=True)]
    assert "".join(part.message.thinking or "" for part in parts) == selftest.THOUGHT
    assert "".join(part.message.content or "" for part in parts) == selftest.ANSWER
    parts = [part async for part in await client.chat("selftest", ask(), tools=[WEATHER], stream=True)]
    [call] = [call for part in parts for call in part.message.tool_calls or []]
    assert call.function.arguments == selftest.TOOL_ARGUMENTS
    many = await asyncio.gather(*(client.generate("selftest", "hello") for _ in range(8)))
    assert {one.response for one in many} == {selftest.ANSWER}
    await client._client.aclose()


def test_a_function_is_offered_as_a_tool_and_its_result_taken(daemon: Daemon):
    def get_weather(city: str) -> str:
        """The weather of a city.

        Args:
          city: its name
        """
        return f"sunny in {city}"

    client = ollama.Client(host=daemon.url)
    called = client.chat("selftest", ask(), tools=[get_weather]).message
    [call] = called.tool_calls or []
    result = get_weather(**call.function.arguments)
    assert result == "sunny in Paris"
    turns = [*ask(), called, {"role": "tool", "tool_name": call.function.name, "content": result}]
    assert client.chat("selftest", turns, tools=[get_weather]).message.content == selftest.ANSWER
    client._client.close()


class Report(pydantic.BaseModel):
    city: str


def test_the_ollama_client_gets_structured_output_and_embeddings(daemon: Daemon):
    client = ollama.Client(host=daemon.url)
    told = client.chat("selftest", ask(), format=Report.model_json_schema()).message.content
    assert Report.model_validate_json(told or "") == Report(city=selftest.ANSWER)
    rows = client.embed("tinyembed", ["hello", "world"]).embeddings
    assert [len(row) for row in rows] == [288, 288]
    assert math.hypot(*rows[0]) == pytest.approx(1.0, abs=1e-5)
    assert len(client.embed("tinyembed", "hello", dimensions=16).embeddings[0]) == 16
    client._client.close()


def test_the_ollama_client_sees_an_unknown_model_as_404(daemon: Daemon):
    client = ollama.Client(host=daemon.url)
    with pytest.raises(ollama.ResponseError) as caught:
        client.chat("nope", ask())
    assert caught.value.status_code == 404
    assert "not found" in caught.value.error
    client._client.close()


def test_the_openai_client_chats_streams_calls_tools_and_sees_errors(daemon: Daemon):
    with openai.OpenAI(base_url=f"{daemon.url}/v1", api_key="unused") as client:
        whole = client.chat.completions.create(model="selftest", messages=ask())  # type: ignore[arg-type]
        assert whole.choices[0].message.content == selftest.ANSWER
        assert whole.model == "selftest"
        parts = client.chat.completions.create(model="selftest", messages=ask(), stream=True)  # type: ignore[call-overload]
        assert (
            "".join(part.choices[0].delta.content or "" for part in parts if part.choices) == selftest.ANSWER
        )
        called = client.chat.completions.create(model="selftest", messages=ask(), tools=[WEATHER])  # type: ignore[call-overload]
        assert called.choices[0].message.tool_calls[0].function.name == selftest.TOOL_NAME
        assert "selftest:latest" in {model.id for model in client.models.list()}
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="nope", messages=ask())  # type: ignore[arg-type]


def test_a_long_conversation_goes_on_without_its_oldest_turns_unless_that_is_refused(daemon: Daemon):
    client = ollama.Client(host=daemon.url)
    history = [{"role": role, "content": "words " * 60} for _ in range(12) for role in ("user", "assistant")]
    long = [{"role": "system", "content": "be brief"}, *history, *ask()]
    assert (
        client.chat("selftest", long, think=False, options={"num_ctx": 512}).message.content
        == selftest.ANSWER
    )
    body = {
        "model": "selftest",
        "messages": long,
        "options": {"num_ctx": 512},
        "truncate": False,
        "stream": False,
    }
    with pytest.raises(AssertionError, match=r"400: .*exceeds the available context size"):
        daemon.post("/api/chat", body)
    client._client.close()
