"""``/v1/responses`` and what is remembered of its answers."""

from __future__ import annotations

import json
from typing import Any

from tests.proxy.conftest import ANSWER, Front
from tests.wire.streams import sse_events

PATH = "/v1/responses"
WEATHER = {"type": "function", "name": "get_weather", "parameters": {"type": "object"}}


async def test_a_stream_has_every_event_in_order_and_ends_completed(front: Front) -> None:
    async with front.post(PATH, {"model": "tinychat", "input": "hi", "stream": True}) as answer:
        assert answer.headers["Content-Type"] == "text/event-stream"
        told = [(name, json.loads(data)) for name, data in sse_events(await answer.read())]
    assert [data["sequence_number"] for _, data in told] == list(range(len(told)))
    assert told[-1][0] == "response.completed"
    assert told[-1][1]["response"]["output"][0]["content"][0]["text"] == ANSWER


async def test_a_call_of_a_function_comes_as_an_item(front: Front) -> None:
    status, told = await front.whole(PATH, model="tinychat", input="hi", tools=[WEATHER])
    (item,) = told["output"]
    assert (status, item["type"], json.loads(item["arguments"])) == (200, "function_call", {"city": "Paris"})


async def test_a_limit_makes_an_answer_incomplete(front: Front) -> None:
    _, told = await front.whole(PATH, model="tinychat", input="hi", max_output_tokens=2)
    assert (told["status"], told["usage"]["output_tokens"]) == ("incomplete", 2)


async def prompt_tokens(front: Front, **body: Any) -> int:
    _, told = await front.whole(PATH, model="tinychat", **body)
    return int(told["usage"]["input_tokens"])


async def test_a_conversation_goes_on_from_an_answer_without_its_instructions(front: Front) -> None:
    _, first = await front.whole(PATH, model="tinychat", input="hi", instructions="be brief")
    on = await prompt_tokens(front, input="and?", previous_response_id=first["id"])
    spelled = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": ANSWER},
        {"role": "user", "content": "and?"},
    ]
    assert on == await prompt_tokens(front, input=spelled)
    assert on > await prompt_tokens(front, input="and?")


async def test_an_answer_that_is_not_stored_or_was_deleted_cannot_be_gone_on_from(front: Front) -> None:
    _, stored = await front.whole(PATH, model="tinychat", input="hi")
    async with front.session.get(f"{PATH}/{stored['id']}") as answer:
        assert json.loads(await answer.read())["output"] == stored["output"]
    async with front.session.delete(f"{PATH}/{stored['id']}") as answer:
        assert json.loads(await answer.read()) == {"id": stored["id"], "object": "response", "deleted": True}
    _, unstored = await front.whole(PATH, model="tinychat", input="hi", store=False)
    for gone in (stored["id"], unstored["id"]):
        status, told = await front.whole(PATH, model="tinychat", input="x", previous_response_id=gone)
        assert (status, told["error"]["code"]) == (400, "previous_response_not_found")
        async with front.session.get(f"{PATH}/{gone}") as answer:
            assert answer.status == 404
        async with front.session.delete(f"{PATH}/{gone}") as answer:
            assert answer.status == 404


async def test_a_streamed_answer_is_remembered_too(front: Front) -> None:
    async with front.post(PATH, {"model": "tinychat", "input": "hi", "stream": True}) as answer:
        last = sse_events(await answer.read())[-1][1]
    kept = json.loads(last)["response"]["id"]
    assert await prompt_tokens(front, input="and?", previous_response_id=kept) > 8


async def test_refusals_name_the_field(front: Front) -> None:
    status, told = await front.whole(PATH, model="tinychat", input=[{"type": "item_reference", "id": "x"}])
    assert (status, told["error"]["param"]) == (400, "input[0].type")


async def test_the_header_that_tells_what_is_left_out_stays_short(front: Front) -> None:
    tools = [{"type": "web_search"}, *({"type": f"kind{place}"} for place in range(10_000))]
    body = {"model": "tinychat", "input": "hi", "tools": [*tools, *tools]}
    async with front.post(PATH, body) as answer:
        told = answer.headers["X-Left-Out-Tools"]
    assert (answer.status, len(told) <= 2000, told.split(", ")[:2]) == (200, True, ["web_search", "kind0"])
    async with front.post(PATH, {**body, "tools": [{"type": "x" * 5000}]}) as answer:
        assert (answer.status, len(answer.headers["X-Left-Out-Tools"])) == (200, 2000)
