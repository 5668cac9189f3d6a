"""``/v1/responses`` and what is remembered of its answers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llamamgr.proxy.writer import Writer
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


async def test_a_call_of_a_custom_tool_comes_as_a_text_and_can_be_answered(front: Front) -> None:
    tools = [{"type": "custom", "name": "get_weather"}]
    _, told = await front.whole(PATH, model="tinychat", input="hi", tools=tools)
    (item,) = told["output"]
    assert (item["type"], json.loads(item["input"])) == ("custom_tool_call", {"city": "Paris"})
    result = {"type": "custom_tool_call_output", "call_id": item["call_id"], "output": "rain"}
    status, after = await front.whole(PATH, model="tinychat", input=[result], previous_response_id=told["id"])
    assert (status, after["status"]) == (200, "completed")
    _, listed = await got(front, f"{after['id']}/input_items?order=asc")
    assert [one["type"] for one in listed["data"][1:]] == ["custom_tool_call", "custom_tool_call_output"]


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
        last = json.loads(sse_events(await answer.read())[-1][1])["response"]
    kept = last["id"]
    assert (await got(front, kept))[1] == last
    assert await prompt_tokens(front, input="and?", previous_response_id=kept) > 8


async def test_refusals_name_the_field(front: Front) -> None:
    status, told = await front.whole(PATH, model="tinychat", input=[{"type": "computer_call", "id": "x"}])
    assert (status, told["error"]["param"]) == (400, "input[0].type")


async def test_the_header_that_tells_what_is_left_out_stays_short(front: Front) -> None:
    tools = [{"type": "web_search"}, *({"type": f"kind{place}"} for place in range(10_000))]
    body = {"model": "tinychat", "input": "hi", "tools": [*tools, *tools]}
    async with front.post(PATH, body) as answer:
        told = answer.headers["X-Left-Out-Tools"]
    assert (answer.status, len(told) <= 2000, told.split(", ")[:2]) == (200, True, ["web_search", "kind0"])
    async with front.post(PATH, {**body, "tools": [{"type": "x" * 5000}]}) as answer:
        assert (answer.status, len(answer.headers["X-Left-Out-Tools"])) == (200, 2000)


async def got(front: Front, path: str, method: str = "GET") -> tuple[int, Any]:
    async with front.session.request(method, f"{PATH}/{path}") as answer:
        return answer.status, json.loads(await answer.read())


async def counted(front: Front, **body: Any) -> int:
    async with front.post(f"{PATH}/input_tokens", body) as answer:
        told = json.loads(await answer.read())
    assert (answer.status, told["object"]) == (200, "response.input_tokens"), told
    return int(told["input_tokens"])


async def test_the_tokens_of_a_request_are_counted_as_its_answer_tells_them(front: Front) -> None:
    _, first = await front.whole(PATH, model="tinychat", input="hi", instructions="be brief")
    asked = {"input": "and then?", "instructions": "be long", "tools": [WEATHER]}
    on = {**asked, "previous_response_id": first["id"]}
    for body in (asked, on):
        tokens = await counted(front, model="tinychat", **body)
        assert tokens == await prompt_tokens(front, **body)
    assert await counted(front, **on) == tokens
    assert await counted(front, previous_response_id=first["id"]) < tokens


async def test_a_count_of_what_cannot_be_asked_is_refused(front: Front) -> None:
    for body, status, param in (
        ({"model": "tinychat"}, 400, "input"),
        ({"input": "hi"}, 400, "model"),
        ({"model": "tinychat", "previous_response_id": "resp_1"}, 400, "previous_response_id"),
        ({"model": "nope", "input": "hi"}, 404, None),
    ):
        async with front.post(f"{PATH}/input_tokens", body) as answer:
            told = json.loads(await answer.read())
        assert (answer.status, told["error"]["param"]) == (status, param)


async def test_what_an_answer_was_made_of_is_listed_with_what_it_went_on_from(front: Front) -> None:
    _, first = await front.whole(PATH, model="tinychat", input="hi")
    more = [{"role": "developer", "content": "rules"}, {"role": "user", "content": "and?"}]
    _, second = await front.whole(PATH, model="tinychat", input=more, previous_response_id=first["id"])
    status, told = await got(front, f"{second['id']}/input_items?order=asc")
    assert (status, told["has_more"]) == (200, False)
    assert [(item["role"], item["content"][0]["text"]) for item in told["data"]] == [
        ("user", "hi"),
        ("assistant", ANSWER),
        ("developer", "rules"),
        ("user", "and?"),
    ]
    assert told["data"][1] == first["output"][0]
    ids = [item["id"] for item in told["data"]]
    _, page = await got(front, f"{second['id']}/input_items?limit=2&after={ids[3]}")
    assert ([item["id"] for item in page["data"]], page["has_more"]) == ([ids[2], ids[1]], True)
    _, alone = await got(front, f"{first['id']}/input_items")
    assert alone["data"] == told["data"][:1]


async def test_items_of_before_may_be_sent_as_references(front: Front) -> None:
    async with front.post(PATH, {"model": "tinychat", "input": "hi", "stream": True}) as answer:
        first = json.loads(sse_events(await answer.read())[-1][1])["response"]
    _, listed = await got(front, f"{first['id']}/input_items")
    items = [{"type": "item_reference", "id": item["id"]} for item in (*listed["data"], *first["output"])]
    on = [*items, {"role": "user", "content": "and?"}]
    assert await prompt_tokens(front, input=on) == await prompt_tokens(
        front, input="and?", previous_response_id=first["id"]
    )
    await got(front, first["id"], "DELETE")
    _, again = await front.whole(PATH, model="tinychat", input=on)
    assert again["status"] == "completed", "the answers that were made of them have them too"
    status, told = await front.whole(PATH, model="tinychat", input=[{"type": "item_reference", "id": "rs_0"}])
    assert (status, told["error"]["param"]) == (404, "input")


async def test_no_answer_is_cancelled_or_streamed_later(front: Front) -> None:
    _, known = await front.whole(PATH, model="tinychat", input="hi")
    status, told = await got(front, f"{known['id']}/cancel", "POST")
    assert (status, told["error"]["type"]) == (400, "invalid_request_error")
    assert "background" in told["error"]["message"]
    status, told = await got(front, f"{known['id']}?stream=true")
    assert (status, told["error"]["param"]) == (400, "stream")
    assert (await got(front, f"{known['id']}?stream=false&include[]=reasoning.encrypted_content"))[0] == 200
    for path, method in (("", "GET"), ("/input_items", "GET"), ("/cancel", "POST"), ("", "DELETE")):
        status, told = await got(front, f"resp_0{path}", method)
        assert (status, told["error"]["message"]) == (404, "Response with id 'resp_0' not found.")


async def test_an_answer_is_known_before_its_end_is_told(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = []
    write = Writer.write

    async def watched(self: Writer, data: bytes) -> None:
        if b"event: response.completed" in data:
            known.append(len(front.services.answers))
        await write(self, data)

    monkeypatch.setattr(Writer, "write", watched)
    async with front.post(PATH, {"model": "tinychat", "input": "hi", "stream": True}) as answer:
        await answer.read()
    assert known == [1]


LONG = [{"role": role, "content": "tiny llama " * 300} for role in ("user", "assistant", "user", "assistant")]


async def test_what_is_longer_than_the_context_is_refused_or_loses_its_oldest_turns(front: Front) -> None:
    asked = {"input": [*LONG, {"role": "user", "content": "hi"}], "instructions": "be brief"}
    status, told = await front.whole(PATH, model="tinychat", **asked)
    assert (status, told["error"]["code"]) == (400, "context_length_exceeded")
    status, told = await front.whole(PATH, model="tinychat", truncation="auto", **asked)
    assert (status, told["status"], told["truncation"]) == (200, "completed", "auto")
    assert told["usage"]["input_tokens"] < 2048
    async with front.post(
        PATH, {"model": "tinychat", "truncation": "auto", "stream": True, **asked}
    ) as answer:
        assert sse_events(await answer.read())[-1][0] == "response.completed"
    alone = {"input": LONG[0]["content"] * 2}
    status, told = await front.whole(PATH, model="tinychat", truncation="auto", **alone)
    assert (status, told["error"]["code"]) == (400, "context_length_exceeded")


async def probabilities(front: Front, **more: Any) -> list[Any]:
    _, told = await front.whole(PATH, model="tinychat", input="hi", **more)
    return list(told["output"][0]["content"][0]["logprobs"])


async def test_probabilities_are_told_where_they_are_asked_for(front: Front) -> None:
    assert await probabilities(front) == []
    rows = await probabilities(front, include=["message.output_text.logprobs"])
    assert "".join(row["token"] for row in rows) == ANSWER
    assert {len(row["top_logprobs"]) for row in rows} == {0}
    assert {len(row["top_logprobs"]) for row in await probabilities(front, top_logprobs=2)} == {2}


async def test_an_image_for_a_model_that_cannot_see_ends_no_session_when_a_tool_gave_it(front: Front) -> None:
    image = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}
    call = {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"}
    given = [call, {"type": "function_call_output", "call_id": "c", "output": [image]}]
    status, told = await front.whole(PATH, model="tinychat", input=given)
    assert (status, told["status"]) == (200, "completed")
    status, after = await front.whole(PATH, model="tinychat", input="on", previous_response_id=told["id"])
    assert (status, after["status"]) == (200, "completed")
    status, refused = await front.whole(PATH, model="tinychat", input=[{"role": "user", "content": [image]}])
    assert (status, refused["error"]["message"].startswith("Multimodal data")) == (400, True)
