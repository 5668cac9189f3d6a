"""``/v1/chat/completions``: bytes pass, the name is the client's."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import msgspec
import pytest

from tests.proxy.conftest import ANSWER, HI, Front

PATH = "/v1/chat/completions"


async def stream(front: Front, **body: Any) -> list[Any]:
    async with front.post(PATH, {"model": "tinychat", "messages": HI, "stream": True, **body}) as answer:
        assert (answer.status, answer.headers["Content-Type"]) == (200, "text/event-stream")
        events = (await answer.read()).decode().split("\n\n")
    assert events.pop() == ""
    return [event[6:] if event == "data: [DONE]" else json.loads(event[6:]) for event in events]


async def test_a_stream_passes_whole_with_the_name_that_was_asked_for(front: Front) -> None:
    chunks = await stream(front, model="TinyChat")
    assert chunks.pop() == "[DONE]"
    assert {chunk["model"] for chunk in chunks} == {"TinyChat"}
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks) == ANSWER


async def test_include_usage_is_the_engines_business(front: Front) -> None:
    chunks = await stream(front, stream_options={"include_usage": True})
    assert chunks[-2]["usage"]["completion_tokens"] == 7


async def test_a_whole_answer_passes_with_its_length(front: Front) -> None:
    async with front.post(PATH, {"model": "tinychat", "messages": HI}) as answer:
        body = await answer.read()
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Content-Length"] == str(len(body))
    whole = json.loads(body)
    assert (whole["model"], whole["choices"][0]["message"]["content"]) == ("tinychat", ANSWER)
    assert "timings" in whole  # what the engine adds is kept


async def refused(answer: aiohttp.ClientResponse) -> tuple[int, Any]:
    return answer.status, json.loads(await answer.read())["error"]


async def test_refusals_come_in_openais_envelope(front: Front) -> None:
    cases = [
        ({"model": "nope", "messages": HI}, 404, "model 'nope' not found", None, "model_not_found"),
        ({"messages": HI}, 400, "model is required", "model", None),
        ({"model": "tinychat", "messages": []}, 400, "[] is too short - 'messages'", "messages", None),
        ({"model": "tinyembed", "messages": HI}, 400, '"tinyembed" does not support chat', "model", None),
    ]
    for body, status, message, param, code in cases:
        async with front.post(PATH, body) as answer:
            kind = "not_found_error" if status == 404 else "invalid_request_error"
            expected = {"message": message, "type": kind, "param": param, "code": code}
            assert await refused(answer) == (status, expected)


async def test_an_image_for_a_model_that_sees_none_is_refused_before_a_load(front: Front) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    async with front.post(
        PATH, {"model": "tinychat", "messages": [{"role": "user", "content": [image]}]}
    ) as answer:
        status, error = await refused(answer)
    assert (status, error["message"].startswith("Multimodal data provided")) == (400, True)
    assert front.children.granted == []


async def test_a_refusal_of_the_engine_keeps_its_status_and_loses_its_nesting(front: Front) -> None:
    body = {"model": "tinychat", "messages": [{"role": "user", "content": "a" * 3000}], "stream": True}
    async with front.post(PATH, body) as answer:
        status, error = await refused(answer)
    assert (status, error["type"]) == (400, "invalid_request_error")
    assert error["message"].startswith("request (3004 tokens) exceeds")
    assert error["code"] == "context_length_exceeded"


async def test_a_full_queue_is_503_with_the_seconds_to_wait(front: Front) -> None:
    front.children.busy = True
    async with front.post(PATH, {"model": "tinychat", "messages": HI}) as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (503, "7")
        assert json.loads(await answer.read())["error"]["type"] == "api_error"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (PATH, {"messages": HI}),
        ("/v1/messages", {"messages": HI, "max_tokens": 50}),
        ("/v1/responses", {"input": "hi"}),
    ],
)
async def test_a_model_made_with_words_of_its_own_says_them_to_the_engine(
    front: Front, monkeypatch: pytest.MonkeyPatch, path: str, words: dict[str, Any]
) -> None:
    _, plain = await front.whole(path, model="tinychat", **words)
    index = front.services.index
    made = msgspec.structs.replace(
        index.resolve("tinychat"), system="be a pirate", settings={"num_predict": 2}
    )
    monkeypatch.setattr(index, "recall", lambda name: made)
    _, told = await front.whole(path, model="tinychat", **words)
    asked = "prompt_tokens" if path == PATH else "input_tokens"
    assert told["usage"][asked] > plain["usage"][asked] + len("be a pirate") - 1
    if "max_tokens" not in words:
        assert 2 in (told["usage"].get("completion_tokens"), told["usage"].get("output_tokens"))
