"""Frameworks for Python that speak to servers of models: each in real exchanges with a tool call, and to nobody else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from llamamgr.models import selftest

# the first run makes the environments
pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]
Ask = Callable[[str], Any]
ANSWER, THOUGHT = selftest.ANSWER, selftest.THOUGHT
CALLED = [[selftest.TOOL_NAME, selftest.TOOL_ARGUMENTS]]
CITY = {"city": ANSWER}  # what the self-test model fills a string of a schema with


def test_litellm_calls_tools_by_each_of_three_apis(ask: Ask) -> None:
    told = ask("litellm")
    exchange = {
        "whole": CALLED,
        "streamed": CALLED,
        "reason": "tool_calls",
        "after": ANSWER,
        "said": ANSWER,
        "counted": True,
    }
    assert told["exchanges"] == dict.fromkeys(("ollama", "openai", "anthropic"), exchange)
    assert told["refusals"] == dict.fromkeys(("ollama", "openai", "anthropic"), True)
    assert told["rows"] == [2, 2]


def test_langchain_calls_tools_thinks_and_embeds(ask: Ask) -> None:
    told = ask("langchain")
    assert told["whole"] == told["streamed"] == CALLED
    assert (told["asked"], told["after"]) == ([selftest.TOOL_ARGUMENTS], ANSWER)
    assert (told["said"], told["completed"], told["counted"]) == (ANSWER, ANSWER, True)
    assert (told["thought"], told["structured"], told["rows"]) == ([THOUGHT, ANSWER], CITY, 2)


def test_llama_index_calls_tools_itself_and_by_an_agent(ask: Ask) -> None:
    told = ask("llama-index")
    assert told["whole"] == told["streamed"] == CALLED
    assert (told["agent"], told["asked"]) == ([ANSWER, ANSWER], [selftest.TOOL_ARGUMENTS])
    assert (told["said"], told["thought"], told["structured"]) == (ANSWER, [THOUGHT], CITY)


def test_an_agent_of_pydantic_ai_calls_its_tool_by_chats_and_by_responses(ask: Ask) -> None:
    told = ask("pydantic-ai")
    assert told["whole"] == told["streamed"] == [ANSWER, ANSWER]
    assert told["asked"] == [selftest.TOOL_ARGUMENTS] * 4
    assert (told["counted"], told["structured"], told["refused"]) == (True, CITY, 404)
