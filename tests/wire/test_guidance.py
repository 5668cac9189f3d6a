"""What a Modelfile adds to requests of OpenAI's and Anthropic's dialects."""

from __future__ import annotations

import json

import msgspec
import pytest

from llamamgr.wire.guidance import guided, guided_body, sampling_under
from llamamgr.wire.neutral import ChatRequest, Message
from llamamgr.wire.ollama_options import parse_options
from llamamgr.wire.persona import NOBODY, Persona

PERSONA = Persona(
    "be a pirate",
    (Message("user", "ahoy"),),
    parse_options({"temperature": 0, "num_predict": 5, "num_ctx": 99}),
)
HI = Message("user", "hi")


def test_nobody_changes_nothing() -> None:
    chat = ChatRequest((HI,))
    assert guided(chat, NOBODY) is chat
    assert guided_body(b"anything", NOBODY) == b"anything"


def test_its_words_come_first_and_its_system_text_gives_way() -> None:
    assert guided(ChatRequest((HI,)), PERSONA).messages == (
        Message("system", "be a pirate"),
        Message("user", "ahoy"),
        HI,
    )
    own = Message("system", "be brief")
    assert guided(ChatRequest((own, HI)), PERSONA).messages == (Message("user", "ahoy"), own, HI)


@pytest.mark.parametrize(
    ("given", "under"),
    [
        ({}, {"temperature": 0, "n_predict": 5}),
        ({"temperature": 1}, {"n_predict": 5}),
        ({"max_tokens": 9}, {"temperature": 0}),
        ({"max_completion_tokens": msgspec.Raw(b"9")}, {"temperature": 0}),
        ({"temperature": msgspec.Raw(b"null")}, {"temperature": 0, "n_predict": 5}),
    ],
)
def test_its_sampling_holds_where_the_request_says_nothing(
    given: dict[str, object], under: dict[str, object]
) -> None:
    assert sampling_under(PERSONA, given) == under


def test_no_limit_is_not_said() -> None:
    assert sampling_under(Persona(options=parse_options({"num_predict": -1})), {}) == {}


@pytest.mark.parametrize("role", ["system", "developer"])
def test_a_body_keeps_what_it_says(role: str) -> None:
    turns = [{"role": role, "content": "x"}, {"role": "user", "content": [{"type": "text", "text": "hi"}]}]
    told = json.loads(
        guided_body(json.dumps({"model": "m", "messages": turns, "temperature": 1}).encode(), PERSONA)
    )
    assert told == {
        "model": "m",
        "temperature": 1,
        "n_predict": 5,
        "messages": [{"role": "user", "content": "ahoy"}, *turns],
    }
