"""Items of stored responses in full, and pages of them."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamamgr.wire import responses_request
from llamamgr.wire.errors import DialectError
from llamamgr.wire.responses_stored import Page, Stored, page_answer, page_of, stored


def told(*items: Any, taken: tuple[str, ...] = ()) -> list[Any]:
    numbers = itertools.count()
    asked = responses_request.parse(json.dumps({"model": "m", "input": items}).encode())
    kept = stored(asked.items, lambda: str(next(numbers)), taken)
    found = [json.loads(item.data) for item in kept]
    assert [item["id"] for item in found] == [item.id for item in kept]
    return found


def test_what_an_input_item_may_leave_out_is_told() -> None:
    said, answered, call, output, thought = told(
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "yes"},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "rain"},
        {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "hm"}]},
    )
    plain = {"status": "completed", "type": "message"}
    assert said == {
        **plain,
        "id": "msg_0",
        "role": "user",
        "content": [{"type": "input_text", "text": "hi"}],
    }
    text = {"type": "output_text", "text": "yes", "annotations": [], "logprobs": []}
    assert answered == {**plain, "id": "msg_1", "role": "assistant", "content": [text]}
    assert (call["id"], call["name"], output["id"], output["output"]) == ("fc_2", "f", "fco_3", "rain")
    custom = {"call_id": "c", "name": "f", "input": "x", "output": "y"}
    kinds = ("custom_tool_call", "custom_tool_call_output")
    assert [one["id"] for one in told(*({**custom, "type": kind} for kind in kinds))] == ["ctc_0", "ctco_1"]
    assert (thought["id"], thought["summary"], thought["status"]) == ("rs_4", [], "completed")


def test_what_nobody_here_reads_stays_as_it_is_written() -> None:
    body = b'{"model":"m","input":[{"role":"user","content":[{"type":"text","text":"a","x":1e999}],"y":%s}]}'
    odd = str(10**40).encode()
    [item] = stored(responses_request.parse(body % odd).items, lambda: "1")
    assert b'"x":1e999' in item.data
    assert b'"y":' + odd in item.data


def test_an_item_keeps_its_id_unless_another_has_it() -> None:
    item = {"id": "msg_a", "role": "user", "content": "hi"}
    assert [one["id"] for one in told(item, item, {**item, "id": "msg_b"}, taken=("msg_b",))] == [
        "msg_a",
        "msg_0",
        "msg_1",
    ]
    assert [one["id"] for one in told({**item, "id": ""}, {**item, "id": "x" * 200})] == ["msg_0", "msg_1"]


ITEMS = tuple(Stored(name, b'{"id":"%s"}' % name.encode()) for name in "abcde")


def listed(page: Page) -> tuple[str, bool, str | None, str | None]:
    answer = json.loads(page_answer(ITEMS, page))
    assert answer["object"] == "list"
    names = "".join(item["id"] for item in answer["data"])
    return names, answer["has_more"], answer["first_id"], answer["last_id"]


def test_the_newest_items_come_first_unless_asked_otherwise() -> None:
    assert listed(Page()) == ("edcba", False, "e", "a")
    assert listed(Page(2)) == ("ed", True, "e", "d")
    assert listed(Page(2, ascending=True, after="b")) == ("cd", True, "c", "d")
    assert listed(Page(2, after="b")) == ("a", False, "a", "a")
    assert listed(Page(after="a")) == ("", False, None, None)


@given(st.integers(1, 7), st.booleans())
def test_pages_after_each_other_are_the_whole_list(limit: int, ascending: bool) -> None:
    found, more, after = "", True, ""
    while more:
        names, more, _, last = listed(Page(limit, ascending, after))
        found, after = found + names, last or ""
    assert found == ("abcde" if ascending else "edcba")


def test_a_query_is_read_as_a_page() -> None:
    assert page_of({}) == Page(20, ascending=False, after="")
    assert page_of({"limit": "100", "order": "asc", "after": "x", "include[]": "y"}) == Page(100, True, "x")


@pytest.mark.parametrize(
    ("query", "param"),
    [
        *(({"limit": limit}, "limit") for limit in ("0", "101", "-1", "1.5", "x", "", "\u00b2", "9" * 5000)),
        *(({"order": order}, "order") for order in ("", "up", "DESC")),
    ],
)
def test_a_page_that_cannot_be_is_refused(query: dict[str, str], param: str) -> None:
    with pytest.raises(DialectError) as refused:
        page_of(query)
    assert (refused.value.status, refused.value.param) == (400, param)


def test_after_an_item_that_is_not_there_comes_no_page() -> None:
    with pytest.raises(DialectError) as refused:
        page_answer(ITEMS, Page(after="x"))
    assert (refused.value.status, refused.value.param) == (400, "after")
