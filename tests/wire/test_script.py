"""What a Go template asks of an engine for a chat, and how its answer is read."""

from __future__ import annotations

import itertools
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamamgr.core.cards import ModelCard
from llamamgr.wire import engine, placing
from llamamgr.wire.errors import DialectError
from llamamgr.wire.gotemplate import compiled
from llamamgr.wire.neutral import (
    ChatRequest,
    Event,
    Finished,
    JsonObject,
    JsonSchema,
    Message,
    TextDelta,
    ToolCallDelta,
)
from llamamgr.wire.persona import Persona
from llamamgr.wire.script import Script, script_for

TEXT = (
    "{{ range .Messages }}{{ .Content }}{{ if .ToolCalls }}<call>{{ range .ToolCalls }}{}{{ end }}{{ end }}{{ end }}"
    "|{{ .Think }}{{ .ThinkLevel }}|{{ .Tools }}{{ if .Thinking }}{{ end }}"
)
PLAIN = "{{ range .Messages }}{{ .Content }}{{ end }}|{{ .Think }} {{ .ThinkLevel }} {{ .IsThinkSet }}"


def tool(name: str, **parameters: Any) -> msgspec.Raw:
    declared = {"name": name, "parameters": {"type": "object", **parameters}}
    return msgspec.Raw(msgspec.json.encode({"type": "function", "function": declared}))


def script(text: str = PLAIN, can_think: bool = False) -> Script:
    return Script(text, compiled(text), can_think)


def chat(**more: Any) -> ChatRequest:
    return ChatRequest(messages=(Message("user", "hi"),), **more)


@pytest.mark.parametrize(
    ("can_think", "think", "sampling", "told"),
    [
        (True, None, {}, "true  true"),
        (True, True, {"reasoning_effort": "low"}, "true low true"),
        (True, "high", {}, "true high true"),
        (True, False, {"reasoning_effort": "low"}, "false  true"),
        (False, None, {}, "false  false"),
        (False, False, {}, "false  true"),
    ],
)
def test_a_model_that_can_think_does_unless_told_not_to(
    can_think: bool, think: Any, sampling: dict[str, object], told: str
) -> None:
    assert script(can_think=can_think).prompt(chat(think=think, sampling=sampling), 0) == f"hi|{told}"


@pytest.mark.parametrize(
    ("sampling", "limit"),
    [
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 6, "max_tokens": 5}, 6),
        ({"n_predict": 7, "max_tokens": 5}, 7),
        ({"max_completion_tokens": msgspec.Raw(b"null"), "max_tokens": 5}, 5),
        ({}, None),
    ],
)
def test_every_name_of_the_limit_is_the_engines(sampling: dict[str, object], limit: int | None) -> None:
    asked = script().continuation(chat(sampling={**sampling, "top_k": 3, "verbose": True}), "p")
    assert asked.sampling == {"top_k": 3} | ({} if limit is None else {"n_predict": limit})


def test_a_call_that_must_be_made_is_one_by_grammar() -> None:
    inner = {"$defs": {"City": {"type": "string"}}, "properties": {"city": {"$ref": "#/$defs/City"}}}
    forced = chat(tools=(tool("f", **inner), tool("g")), tool_choice="required", response_format=JsonObject())
    asked = script().continuation(forced, "p")
    assert isinstance(asked.response_format, JsonSchema)
    schema = json.loads(bytes(asked.response_format.schema))
    assert [form["properties"]["name"]["const"] for form in schema["anyOf"]] == ["f", "g"]
    assert schema["$defs"] == {"City": {"type": "string"}}  # where references are looked up
    assert "$defs" not in schema["anyOf"][0]["properties"]["arguments"]


def test_a_forced_call_is_read_though_the_template_marks_calls_otherwise() -> None:
    forced = chat(tools=(tool("f"),), tool_choice="required", think=True)
    reader = script(TEXT, can_think=True).reader(forced, "p")
    told = reader.feed([TextDelta('{"name": "f", "arguments": {"a": 1}}'), Finished("stop")])
    assert [event for event in told if isinstance(event, ToolCallDelta)] == [
        ToolCallDelta(0, "", "f", '{"a":1}')
    ]


@pytest.mark.parametrize(
    ("parallel", "count"), [(None, 2), (True, 2), (False, 1), (msgspec.Raw(b"false"), 1)]
)
def test_parallel_calls_are_told_unless_they_are_not_wanted(parallel: object, count: int) -> None:
    asked = chat(tools=(tool("f"),), sampling={"parallel_tool_calls": parallel})
    told = (
        script(TEXT).reader(asked, "p").feed([TextDelta('<call>{"name":"f"}{"name":"f"}'), Finished("stop")])
    )
    assert len([event for event in told if isinstance(event, ToolCallDelta)]) == count


def test_a_template_that_fails_on_a_chat_says_so() -> None:
    broken = script("{{ range .Messages }}{{ .Nothing }}{{ end }}")
    with pytest.raises(DialectError, match="can't evaluate field Nothing"):
        broken.prompt(chat(), 0)


@pytest.mark.parametrize("tools", [b"1", b"[]", b'"x"', b'{"function":1}', b'{"function":{"name":1e400}}'])
def test_a_tool_that_is_none_is_refused_or_passed_over(tools: bytes) -> None:
    asked = chat(tools=(msgspec.Raw(tools),), tool_choice="required")
    try:
        script(TEXT).prompt(asked, 0)
    except DialectError as refused:
        assert refused.param == "tools"
    script(TEXT).reader(asked, "")
    script(TEXT).continuation(asked, "")


def test_a_modelfiles_template_comes_before_the_files_own() -> None:
    card = ModelCard("m", "0" * 64, ("/m.gguf",), 1, 0.0, chat_template="{{ messages }}")
    assert script_for(card, Persona(template=PLAIN)) is not None
    assert script_for(card, Persona()) is None


def test_media_have_tags_in_the_prompt_and_go_along_with_it() -> None:
    asked = msgspec.structs.replace(chat(), messages=(Message("user", "hi", images=("YQ==",)),))
    by = script("{{ range .Messages }}<{{ .Role }}>{{ .Content }}{{ end }}")
    prompt = by.prompt(asked, 0)
    assert placing.shown(prompt) == "<user>[img-0]hi"
    call = engine.completion_call(by.continuation(asked, prompt), "<m>")
    assert msgspec.json.decode(call.body)["prompt"] == {
        "prompt_string": "<user><m>hi",
        "multimodal_data": ["YQ=="],
    }


@given(
    st.sampled_from(
        [
            "plain words",
            '<call>{"name":"f","arguments":{"a":1}}',
            'so: <call>{"name":"g"}',
            "<cal",
            "<think>a</think>b",
        ]
    ),
    st.lists(st.integers(0, 40), max_size=6),
)
def test_any_cut_of_an_answer_reads_alike(text: str, cuts: list[int]) -> None:
    asked = chat(tools=(tool("f"),))

    def read(pieces: list[str]) -> tuple[dict[type, str], list[tuple[str, str]]]:
        reader = script(TEXT, can_think=True).reader(asked, "")
        told: list[Event] = [event for piece in pieces for event in reader.feed([TextDelta(piece)])]
        told += reader.feed([Finished("stop")])
        texts: dict[type, str] = {}
        for event in told:
            if text := getattr(event, "text", ""):
                texts[type(event)] = texts.get(type(event), "") + text
        return texts, [(one.name, one.arguments) for one in told if isinstance(one, ToolCallDelta)]

    at = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    pieces = [text[start:end] for start, end in itertools.pairwise(at) if start < end]
    assert read(pieces) == read([text])
