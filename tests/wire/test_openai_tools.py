"""``tool_choice`` in all its forms."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from llamamgr.wire.errors import DialectError
from llamamgr.wire.openai_tools import NOTHING, choose, name_of, without_nulls


def raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(json.dumps(value).encode())


def tool(name: str) -> msgspec.Raw:
    return raw({"type": "function", "function": {"name": name, "parameters": {}}})


TOOLS = (tool("a"), tool("b"), tool("c"))


def offered(choice: Any) -> tuple[list[str], str]:
    offer = choose(TOOLS, NOTHING if choice is None else raw(choice))
    return [name_of(one) for one in offer.tools], offer.choice


@pytest.mark.parametrize(
    ("choice", "names", "word"),
    [
        (None, "abc", ""),
        ("auto", "abc", "auto"),
        ("required", "abc", "required"),
        ("any", "abc", "required"),
        ("none", "", ""),
        ({"type": "none"}, "", ""),
        ({"type": "function", "function": {"name": "b"}}, "b", "required"),
        ({"type": "function", "name": "c"}, "c", "required"),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "a"}}]},
            },
            "a",
            "auto",
        ),
        (
            {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "c"}]},
            "c",
            "required",
        ),
        (
            {
                "type": "allowed_tools",
                "mode": "auto",
                "tools": [{"type": "web_search"}, {"type": "function", "name": "b"}],
            },
            "b",
            "auto",
        ),
        ({"type": "allowed_tools", "mode": "auto", "tools": [{"type": "web_search"}]}, "", "auto"),
    ],
)
def test_every_form_becomes_a_word_and_the_tools_it_means(choice: Any, names: str, word: str) -> None:
    assert offered(choice) == ([*names], word)


@pytest.mark.parametrize(
    "choice",
    [
        "sometimes",
        5,
        ["a"],
        {"type": "function", "function": {"name": "x"}},
        {"type": "function"},
        {"type": "allowed_tools", "allowed_tools": {"mode": "auto"}},
        {"type": "allowed_tools", "mode": "required", "tools": [{"type": "web_search"}]},
        {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "x"}]},
        {"type": 5},
        {"type": "banana"},
    ],
)
def test_a_choice_that_is_none_or_names_no_tool_is_refused(choice: Any) -> None:
    with pytest.raises(DialectError) as refused:
        offered(choice)
    assert refused.value.status == 400
    assert refused.value.param in ("tool_choice", "tools")


def test_required_without_tools_is_refused() -> None:
    with pytest.raises(DialectError, match="no tools are given"):
        choose((), raw("required"))


@pytest.mark.parametrize(
    ("function", "kept"),
    [
        ({"name": "a", "description": None, "parameters": None, "strict": None}, {"name": "a"}),
        ({"name": "a", "description": "null"}, {"name": "a", "description": "null"}),
        ({"name": "a", "parameters": {"default": None}}, {"name": "a", "parameters": {"default": None}}),
        (None, None),
    ],
)
def test_only_a_functions_own_nulls_are_left_out(function: Any, kept: Any) -> None:
    given = raw({"type": "function", "function": function})
    told = without_nulls(given)
    assert json.loads(bytes(told))["function"] == kept
    assert (told is given) == (function == kept)


def test_what_is_no_tool_is_refused() -> None:
    with pytest.raises(DialectError):
        without_nulls(raw(None))
