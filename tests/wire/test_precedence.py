"""Tools and a format in one chat."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llamamgr.wire.neutral import Event, Finished, TextDelta, ThinkingDelta, ToolCallDelta
from llamamgr.wire.precedence import Both, Watch, both_of

TOOLS = [{"type": "function", "function": {"name": "f"}}]
FORMAT = {"type": "json_schema", "json_schema": {"name": "a", "schema": {}}}
BOTH = {"model": "m", "messages": [], "tools": TOOLS, "response_format": FORMAT}


def both(**fields: Any) -> Both | None:
    return both_of(json.dumps({**BOTH, **fields}).encode())


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": []},
        {"tools": None},
        {"tool_choice": "none"},
        {"response_format": None},
        {"response_format": {"type": "text"}},
        {"response_format": {}},
        {"response_format": 5},
    ],
)
def test_what_has_but_one_of_them_is_left_alone(fields: dict[str, Any]) -> None:
    assert both(**fields) is None


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"tools":1', b'"tools" "response_format"', b'["tools","response_format"]']
)
def test_what_is_no_request_is_left_alone(body: bytes) -> None:
    assert both_of(body) is None


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "f"}}])
def test_a_call_that_must_be_is_asked_for_without_the_format(choice: Any) -> None:
    asked = both(tool_choice=choice)
    assert asked is not None and asked.must_call
    assert json.loads(asked.calling()) == {
        "model": "m",
        "messages": [],
        "tools": TOOLS,
        "tool_choice": choice,
    }


@pytest.mark.parametrize("more", [{}, {"tool_choice": "auto"}, {"tool_choice": None}])
def test_else_an_answer_without_the_format_shows_whether_the_model_calls(more: Any) -> None:
    asked = both(
        **more, n=2, logprobs=True, stream_options={}, seed=1, response_format={"type": "json_object"}
    )
    assert asked is not None and not asked.must_call
    assert json.loads(asked.probe()) == {
        "model": "m",
        "messages": [],
        "tools": TOOLS,
        "seed": 1,
        "stream": True,
        **more,
    }
    assert json.loads(asked.calling())["tool_choice"] == "required"
    assert "response_format" not in json.loads(asked.calling())


CALL, END = ToolCallDelta(0, "i", "f", "{}"), Finished("stop")


@pytest.mark.parametrize(
    ("events", "turn"),
    [
        ([], None),
        ([ThinkingDelta("hm")], None),
        ([ThinkingDelta("hm"), TextDelta(" \n"), TextDelta("I look"), CALL], "calls"),
        ([TextDelta(' {"a"')], "answers"),
        ([TextDelta("``"), TextDelta("`json")], "answers"),
        ([TextDelta("a" * 300)], None),
        ([TextDelta("a" * 300), TextDelta("a" * 300), CALL], "answers"),
        ([TextDelta("a"), END], "answers"),
    ],
)
def test_what_an_answer_shows(events: list[Event], turn: str | None) -> None:
    watch = Watch()
    watch.feed(events[:1])
    watch.feed(events[1:])
    assert watch.turn == turn
