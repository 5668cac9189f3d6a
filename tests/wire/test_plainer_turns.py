"""Conversations for templates that refuse them as they are."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llamamgr.wire.engine_errors import error_of
from llamamgr.wire.neutral import Failed
from llamamgr.wire.plainer_turns import plainer

REFUSED = error_of(
    400,
    json.dumps(
        {
            "error": {
                "message": "Unable to generate parser for this template.\nJinja Exception: No!",
                "code": 400,
            }
        }
    ).encode(),
)
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def mended(*turns: Any, failed: Failed = REFUSED) -> Any:
    body = plainer(json.dumps({"messages": turns, "stream": True}).encode(), failed)
    if body is None:
        return None
    read = json.loads(body)
    assert read.pop("stream") is True
    return read["messages"]


def turn(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def test_what_a_template_says_is_told_in_one_sentence() -> None:
    assert (REFUSED.status, REFUSED.message) == (
        400,
        "the model's chat template refuses this conversation: No!",
    )


def test_later_system_texts_become_the_users_and_first_ones_one() -> None:
    assert mended(
        turn("system", "a"),
        turn("developer", "b"),
        turn("user", "c"),
        turn("system", "d"),
        turn("assistant", "e"),
    ) == [turn("system", "a\n\nb"), turn("user", "c\n\nd"), turn("assistant", "e")]
    assert mended(turn("system", "a"), turn("system", "b"), turn("user", "c")) == [
        turn("system", "a\n\nb"),
        turn("user", "c"),
    ]


def test_turns_of_one_role_become_one_with_their_pictures() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:,"}}
    assert mended(turn("user", "a"), turn("user", [picture]), turn("user", "b")) == [
        turn("user", [{"type": "text", "text": "a"}, picture, {"type": "text", "text": "b"}])
    ]
    assert mended(turn("user", ""), turn("user", "b")) == [turn("user", "b")]


def test_an_answer_and_its_call_are_one_turn_and_what_follows_a_call_is_not() -> None:
    said, called = turn("assistant", "a"), turn("assistant", None, tool_calls=[CALL])
    assert mended(turn("user", "x"), said, called) == [
        turn("user", "x"),
        turn("assistant", "a", tool_calls=[CALL]),
    ]
    assert mended(turn("user", "x"), called, said) is None


def test_only_then_a_result_takes_in_what_the_user_says_after_it() -> None:
    result = turn("tool", "42", tool_call_id="c")
    turns = (turn("user", "a"), turn("assistant", None, tool_calls=[CALL]), result, turn("user", "b"))
    assert mended(*turns, turn("user", "c"))[-2:] == [result, turn("user", "b\n\nc")]
    assert mended(*turns)[-1] == turn("tool", "42\n\nb", tool_call_id="c")


@pytest.mark.parametrize(
    ("body", "failed"),
    [
        (b'{"messages":[{"role":"user","content":"a"}]}', REFUSED),
        (b'{"messages":5}', REFUSED),
        (b'{"messages":[1]}', REFUSED),
        (b"{}", REFUSED),
        (b"[]", REFUSED),
        (b"no", REFUSED),
        (
            b'{"messages":[{"role":"user","content":"a"},{"role":"user","content":"b"}]}',
            Failed(400, "too long"),
        ),
    ],
)
def test_all_else_stays_as_it_is(body: bytes, failed: Failed) -> None:
    assert plainer(body, failed) is None
