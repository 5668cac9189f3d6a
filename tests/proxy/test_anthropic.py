"""``/v1/messages``, its counting, and the list of models in Anthropic's form."""

from __future__ import annotations

import json
from typing import Any

from tests.proxy.conftest import ANSWER, HI, Front
from tests.wire.streams import sse_events

PATH = "/v1/messages"
ASKED = {"model": "tinychat", "max_tokens": 32, "messages": HI}


async def streamed(front: Front, **body: Any) -> list[tuple[str, Any]]:
    async with front.post(PATH, {**ASKED, "stream": True, **body}) as answer:
        assert (answer.status, answer.headers["Content-Type"]) == (200, "text/event-stream")
        assert answer.headers["request-id"].startswith("req_")
        return [(name, json.loads(data)) for name, data in sse_events(await answer.read())]


async def test_a_stream_tells_the_prompts_size_first_and_says_the_sentence(front: Front) -> None:
    told = await streamed(front, model="TinyChat")
    assert [name for name, _ in told[:2]] == ["message_start", "ping"]
    start = told[0][1]["message"]
    assert (start["model"], start["usage"]["input_tokens"]) == (
        "TinyChat",
        told[-2][1]["usage"]["input_tokens"],
    )
    text = "".join(data["delta"]["text"] for name, data in told if name == "content_block_delta")
    assert (text, told[-1][0]) == (ANSWER, "message_stop")


async def test_a_message_is_the_same_in_one_piece(front: Front) -> None:
    status, whole = await front.whole(PATH, **ASKED)
    assert status == 200
    assert whole["content"] == [{"type": "text", "text": ANSWER}]
    assert (whole["stop_reason"], whole["stop_sequence"]) == ("end_turn", None)
    assert whole["id"].startswith("msg_")


async def test_the_stop_sequence_that_was_met_is_told(front: Front) -> None:
    _, whole = await front.whole(PATH, **ASKED, stop_sequences=["x", " tiny"])
    assert (whole["stop_reason"], whole["stop_sequence"]) == ("stop_sequence", " tiny")
    told = await streamed(front, stop_sequences=["x", " tiny"])
    assert told[-2][1]["delta"] == {"stop_reason": "stop_sequence", "stop_sequence": " tiny"}


async def test_tokens_are_counted_as_a_message_would_be_charged(front: Front) -> None:
    status, counted = await front.whole(
        f"{PATH}/count_tokens", model="tinychat", messages=HI, system="be brief"
    )
    _, whole = await front.whole(PATH, **ASKED, system="be brief")
    assert (status, counted) == (200, {"input_tokens": whole["usage"]["input_tokens"]})


async def test_refusals_are_in_anthropics_envelope_with_one_request_id(front: Front) -> None:
    cases = [
        ({**ASKED, "model": "nope"}, 404, "not_found_error", "model 'nope' not found"),
        (
            {**ASKED, "max_tokens": -1},
            400,
            "invalid_request_error",
            "max_tokens is required and must be positive",
        ),
        ({**ASKED, "model": "tinyembed"}, 400, "invalid_request_error", '"tinyembed" does not support chat'),
    ]
    for body, status, kind, message in cases:
        async with front.post(PATH, body) as answer:
            told = json.loads(await answer.read())
            assert (answer.status, told["error"]) == (status, {"type": kind, "message": message})
            assert answer.headers["request-id"] == told["request_id"]


async def test_a_full_queue_is_an_overload(front: Front) -> None:
    front.children.busy = True
    async with front.post(PATH, ASKED) as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (503, "7")
        assert json.loads(await answer.read())["error"]["type"] == "overloaded_error"


async def test_tools_that_only_anthropic_runs_are_named_in_a_header(front: Front) -> None:
    search = {"type": "web_search_20250305", "name": "web_search"}
    own = {"name": "get_weather", "input_schema": {"type": "object"}}
    async with front.post(PATH, {**ASKED, "tools": [search, own]}) as answer:
        assert (answer.status, answer.headers["X-Left-Out-Tools"]) == (200, "web_search")
    status, told = await front.whole(PATH, **ASKED, tools=[search])
    assert (status, told["error"]["type"]) == (400, "invalid_request_error")


async def test_an_image_for_a_model_that_cannot_see_ends_no_session_when_a_tool_gave_it(front: Front) -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
    call = {"type": "tool_use", "id": "toolu_1", "name": "Read", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": [image]}
    for content, status in (([image], 400), ([result], 200), ([result, image], 400)):
        turns = [*HI, {"role": "assistant", "content": [call]}, {"role": "user", "content": content}]
        for path in (PATH, f"{PATH}/count_tokens"):
            answered, told = await front.whole(path, **{**ASKED, "messages": turns})
            assert answered == status, told
        if status == 400:
            assert told["error"]["message"].startswith("Could not process image: Multimodal data provided")


async def listed(front: Front, query: str = "") -> Any:
    async with front.session.get(f"/v1/models{query}", headers={"anthropic-version": "2023-06-01"}) as answer:
        assert answer.headers["request-id"]
        return json.loads(await answer.read())


async def test_models_are_listed_in_anthropics_form_page_by_page(front: Front) -> None:
    everything = await listed(front)
    names = [model["id"] for model in everything["data"]]
    assert len(names) == 3
    assert (everything["first_id"], everything["last_id"], everything["has_more"]) == (
        names[0],
        names[-1],
        False,
    )
    first = await listed(front, "?limit=1")
    assert ([model["id"] for model in first["data"]], first["has_more"]) == (names[:1], True)
    rest = await listed(front, f"?limit=5&after_id={names[0]}")
    assert ([model["id"] for model in rest["data"]], rest["has_more"]) == (names[1:], False)
    before = await listed(front, f"?limit=1&before_id={names[2]}")
    assert ([model["id"] for model in before["data"]], before["has_more"]) == (names[1:2], True)
    assert (await listed(front, "/tinychat"))["id"] == "tinychat"
    assert (await listed(front, "/nope"))["error"]["type"] == "not_found_error"
    assert (await listed(front, "?limit=0"))["type"] == "error"
