"""No body that a client can send makes a parser fail otherwise than by saying what is wrong with it.

Every field of every request takes each of a list of odd values; what a parser accepts can be put to an engine.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamamgr.core.errors import LlamamgrError
from llamamgr.wire import (
    anthropic_request,
    embeddings,
    engine,
    ollama,
    ollama_models,
    openai_chat,
    openai_chat_turns,
    openai_completions,
    openapi_bodies,
    rerank,
    responses_request,
)
from llamamgr.wire.errors import DialectError
from llamamgr.wire.gotemplate import compiled
from llamamgr.wire.neutral import ChatRequest
from llamamgr.wire.openapi import Body, Operation, document
from llamamgr.wire.script import Script

HI = [{"role": "user", "content": "hi"}]
DEEP = "[" * 50_000 + "]" * 50_000
DEEP_OBJECTS = '{"a":' * 20_000 + "1" + "}" * 20_000
ODD = (
    *("null", "true", "0", "-1", "0.5", "1e400", "-1e400", "1e-400", str(2**70), str(-(2**63) - 1)),
    *("NaN", "Infinity", "-", "01"),
    *('""', '"x"', r'"\ud800"', r'"\udc00\ud800"', r'"\u0000"', '"\x00"', '"\xff"', '"' + "a" * 10_000 + '"'),
    *("[]", "{}", "[null]", "[1]", "[[]]", "[{}]", '["x"]', '[["x"]]', '{"a":1}', '{"a":{"a":[]}}'),
    *('{"type":"json_schema"}', '{"type":"function"}', '{"type":"tool","name":null}', '[{"type":"x"}]'),
    *('[{"role":"user","content":[{"type":"text","text":1}]}]', '[{"role":"assistant","tool_calls":[{}]}]'),
    *('[{"function":1}]', '[{"type":"function","function":{"name":[]}}]', '{"temperature":"hot"}'),
    *("[" + "0," * 100_000 + "0]", "[" + "{}," * 100_000 + "{}]", DEEP, DEEP_OBJECTS),
)

SCRIPT_TEXT = (
    "{{ range .Messages }}{{ .Role }}{{ .Content }}{{ .Thinking }}{{ range .ToolCalls }}{{ .Function.Arguments }}{{ end }}{{ end }}"
    "{{ range .Tools }}{{ .Function.Name }}{{ range $n, $p := .Function.Parameters.Properties }}{{ $n }}{{ $p.Type }}{{ end }}"
    "{{ json . }}{{ end }}{{ .Think }}"
)
SCRIPT = Script(SCRIPT_TEXT, compiled(SCRIPT_TEXT), can_think=True)


def generated(body: bytes) -> None:
    asked = ollama.parse_generate(body)
    put(ollama.to_chat_request(asked, 2048, ("completion", "thinking")))
    engine.completion_call(ollama.to_prompt_request(asked, "", 2048))


def chatted(body: bytes) -> None:
    put(ollama.to_chat_request(ollama.parse_chat(body), 2048, ("completion", "thinking")))


def put(chat: ChatRequest) -> None:
    engine.chat_call(chat)
    engine.apply_template_call(chat.messages, chat.think, chat.tools)
    prompt = SCRIPT.prompt(chat, 0)
    engine.completion_call(SCRIPT.continuation(chat, prompt))
    SCRIPT.reader(chat, prompt)


def passed(body: bytes) -> None:
    put(openai_chat_turns.parse(openai_chat.prepare(body).body).chat)


# what the body is decoded into, who reads it, and one that is good
READERS: tuple[tuple[Body, Callable[[bytes], Any], dict[str, Any]], ...] = (
    (openapi_bodies.GENERATE, generated, {"model": "m", "prompt": "hi"}),
    (openapi_bodies.CHAT, chatted, {"model": "m", "messages": HI}),
    (openapi_bodies.SHOW, ollama.parse_show, {"model": "m"}),
    (openapi_bodies.CREATE, ollama_models.parse_create, {"model": "m", "from": "n"}),
    (openapi_bodies.COPY, ollama_models.parse_copy, {"source": "m", "destination": "n"}),
    (openapi_bodies.DELETE, ollama_models.parse_delete, {"model": "m"}),
    (openapi_bodies.PULL, lambda body: ollama_models.parse_transfer(body, "PullRequest"), {"model": "m"}),
    (openapi_bodies.EMBED, lambda body: embeddings.parse_embed(body).call(), {"model": "m", "input": "hi"}),
    (openapi_bodies.EMBEDDINGS, lambda body: embeddings.parse_legacy(body).call(), {"model": "m"}),
    (openapi_bodies.V1_EMBEDDINGS, lambda body: embeddings.parse_v1(body).call(), {"model": "m", "input": "hi"}),
    (openapi_bodies.CHAT_COMPLETION, openai_chat.prepare, {"model": "m", "messages": HI}),
    (openapi_bodies.CHAT_COMPLETION, passed, {"model": "m", "messages": HI}),
    (openapi_bodies.COMPLETION, lambda body: openai_completions.parse(body).call(), {"model": "m", "prompt": "hi"}),
    (openapi_bodies.RESPONSE, lambda body: put(responses_request.parse(body).chat()), {"model": "m", "input": "hi"}),
    (openapi_bodies.RERANK, lambda body: rerank.parse(body).call(), {"query": "a", "documents": ["b"]}),
    (
        openapi_bodies.MESSAGES,
        lambda body: put(anthropic_request.parse_messages(body).chat),
        {"model": "m", "max_tokens": 4, "messages": HI},
    ),
    (openapi_bodies.COUNT, lambda body: put(anthropic_request.parse_count(body).chat), {"model": "m", "messages": HI}),
)  # fmt: skip
NAMED = [pytest.param(*one, id=f"{one[0].name}-{place}") for place, one in enumerate(READERS)]


def places(body: Body) -> Iterator[tuple[str, ...]]:
    """Every field of a body, and of what its lists and objects hold, as a path; ``[]`` is in a list."""
    operation = Operation("post", "/", "", "ollama", (), body=body)
    schemas = document([operation], {}, "")["components"]["schemas"]
    yield from _within(schemas, schemas[body.name], (), 0)


def _within(schemas: Any, schema: Any, path: tuple[str, ...], depth: int) -> Iterator[tuple[str, ...]]:
    if path:
        yield path
    if depth > 3:
        return
    for one in (schema, *schema.get("anyOf", ())):
        if "$ref" in one and (name := one["$ref"].rpartition("/")[2]) in schemas:
            one = schemas[name]
        for field, inner in one.get("properties", {}).items():
            yield from _within(schemas, inner, (*path, field), depth + 1)
        if "items" in one:
            yield from _within(schemas, one["items"], (*path, "[]"), depth)


def with_odd(good: dict[str, Any], path: tuple[str, ...], odd: str) -> bytes:
    """``good`` with ``odd``, which is JSON or nearly, at ``path``; what is there already is kept around it."""
    marked = json.dumps(_put(good, path))
    return marked.replace('"@odd@"', odd).encode("latin-1")


def _put(value: Any, path: tuple[str, ...]) -> Any:
    if not path:
        return "@odd@"
    if path[0] == "[]":
        first = value[0] if isinstance(value, list) and value else None
        return [_put(first, path[1:])]
    there = value if isinstance(value, dict) else {}
    return {**there, path[0]: _put(there.get(path[0]), path[1:])}


def refusal(reader: Callable[[bytes], Any], body: bytes) -> tuple[int, str]:
    """Status and sentence of what ``body`` is refused with; 200 and nothing when it is read."""
    try:
        reader(body)
    except DialectError as error:
        return error.status, error.message
    except LlamamgrError as error:
        return error.status, error.what
    return 200, ""


def is_sound(told: tuple[int, str]) -> bool:
    """It was read, or the client is told what is wrong with it."""
    status, sentence = told
    return told == (200, "") or (400 <= status < 500 and bool(sentence))


@pytest.mark.parametrize(("body", "reader", "good"), NAMED)
def test_an_odd_value_anywhere_is_read_or_refused(
    body: Body, reader: Callable[[bytes], Any], good: dict[str, Any]
) -> None:
    reader(json.dumps(good).encode())
    fell = []
    for path in places(body):
        for odd in ODD if len(path) < 3 else [odd for odd in ODD if len(odd) < 1000]:
            try:
                told = refusal(reader, with_odd(good, path, odd))
            except Exception as error:
                fell.append(f"{'.'.join(path)} = {odd[:80]}: {error!r}")
            else:
                if not is_sound(told):
                    fell.append(f"{'.'.join(path)} = {odd[:80]}: {told}")
    assert fell == []


@pytest.mark.parametrize(("body", "reader", "good"), NAMED)
@given(data=st.data())
def test_a_body_that_is_damaged_is_read_or_refused(
    data: st.DataObject, body: Body, reader: Callable[[bytes], Any], good: dict[str, Any]
) -> None:
    whole = bytearray(json.dumps({**good, **body.example}).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at] = data.draw(st.integers(0, 255))
    assert is_sound(refusal(reader, bytes(whole)))


@pytest.mark.parametrize(("body", "reader", "good"), NAMED)
@pytest.mark.parametrize(
    "whole", ["", " ", "null", "[]", "1", '"x"', "{", "{}{}", "\xff", DEEP, DEEP_OBJECTS]
)
def test_a_body_that_is_no_object_is_read_or_refused(
    body: Body, reader: Callable[[bytes], Any], good: dict[str, Any], whole: str
) -> None:
    assert is_sound(refusal(reader, whole.encode("latin-1")))
