"""Ollama's requests: its recorded refusals word for word, and every field."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamamgr.wire import ollama
from llamamgr.wire.errors import DialectError
from llamamgr.wire.neutral import JsonObject, JsonSchema, Message, ToolCall
from tests.golden import replay

PARSERS: dict[str, Callable[[bytes], object]] = {
    "/api/generate": ollama.parse_generate,
    "/api/chat": ollama.parse_chat,
    "/api/show": ollama.parse_show,
}
PNG = "iVBORw0KGgo="

# Recorded refusals that need no model to be known, and our status where it differs: a client's mistake is 400.
REFUSED = {
    "generate-format-xml": 400,
    "generate-format-number": 400,
    "generate-stop-string": 400,
    "generate-temp-string": 400,
    "generate-top-logprobs-range": 400,
    "generate-image-bad": 400,
    "generate-keepalive-bool": 400,
    "generate-empty-body": 400,
    "generate-truncated": 400,
    "generate-array": 400,
    "chat-format-xml": 400,
    "chat-think-bad": 400,
    "chat-empty-body": 400,
    "show-missing": 400,
    "show-empty-body": 400,
}


def request(path: str, **fields: object) -> bytes:
    return json.dumps({"model": "m", **fields}).encode()


def generate(**fields: object) -> ollama.GenerateRequest:
    return ollama.parse_generate(request("", **fields))


def chat(**fields: object) -> ollama.ChatBody:
    return ollama.parse_chat(request("", **fields))


def refusal(path: str, body: bytes) -> tuple[int, str]:
    with pytest.raises(DialectError) as refused:
        asked = PARSERS[path](body)
        if mistake := getattr(asked, "bad_options", None) or getattr(asked, "bad_format", None):
            raise mistake  # told once there is a model
    return refused.value.status, refused.value.message


@pytest.mark.parametrize("name", REFUSED)
def test_recorded_refusals_are_given_word_for_word(name: str) -> None:
    (exchange,) = replay.load([name])
    status, message = refusal(exchange.path, exchange.body or b"")
    assert (status, ollama.error_body(message).decode()) == (REFUSED[name], exchange.answer)


def test_every_recorded_request_that_was_answered_is_accepted() -> None:
    answered = [one for one in replay.load() if one.path in PARSERS and one.status == 200]
    assert len(answered) > 30
    for exchange in answered:
        PARSERS[exchange.path](exchange.body or b"")


@pytest.mark.parametrize(
    ("path", "fields", "status", "message"),
    [
        ("/api/generate", {"model": ""}, 404, "model '' not found"),
        ("/api/chat", {"model": ""}, 400, "model is required"),
        ("/api/show", {"model": None}, 400, "model is required"),
        ("/api/generate", {"keep_alive": "banana"}, 400, 'time: invalid duration "banana"'),
        (
            "/api/generate",
            {"keep_alive": 10**400},
            400,
            "json: cannot unmarshal number into Go value of type float64",
        ),
        (
            "/api/chat",
            {"messages": [{"role": "user", "content": ["a"]}]},
            400,
            "json: cannot unmarshal array into Go struct field Alias.content of type string",
        ),
        (
            "/api/chat",
            {"messages": [{"images": ["a!"]}]},
            400,
            "json: cannot unmarshal string into Alias.images.0 of type api.ImageData: illegal base64 data at input byte 1",
        ),
        (
            "/api/chat",
            {"messages": "hi"},
            400,
            "json: cannot unmarshal string into Go struct field ChatRequest.messages of type []api.Message",
        ),
        (
            "/api/chat",
            {"messages": ["hi"]},
            400,
            "json: cannot unmarshal string into Go value of type api.Alias",
        ),
        (
            "/api/chat",
            {"tools": ["t"]},
            400,
            "json: cannot unmarshal string into ChatRequest.tools.0 of type api.Tool",
        ),
        (
            "/api/chat",
            {"messages": [{"tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}]},
            400,
            "Value looks like object, but can't find closing '}' symbol",
        ),
        (
            "/api/chat",
            {"tools": [{"type": "function", "function": {"name": 5}}]},
            400,
            "json: cannot unmarshal number into Go struct field ChatRequest.tools.0.function.name of type string",
        ),
        (
            "/api/chat",
            {"tools": [{"function": 5}]},
            400,
            "json: cannot unmarshal number into Go struct field ChatRequest.tools.0.function of type api.ToolFunction",
        ),
        (
            "/api/chat",
            {"messages": [{}, {"tool_calls": [{}, {"id": 5}]}]},
            400,
            "json: cannot unmarshal number into Go struct field Alias.tool_calls.1.id of type string",
        ),
        (
            "/api/chat",
            {"messages": [5]},
            400,
            "json: cannot unmarshal number into Go value of type api.Alias",
        ),
        (
            "/api/chat",
            {"messages": [{"images": [5]}]},
            400,
            "json: cannot unmarshal number into Alias.images.0 of type api.ImageData",
        ),
        (
            "/api/generate",
            {"context": [1, "a"]},
            400,
            "json: cannot unmarshal string into GenerateRequest.context.1 of type int",
        ),
        (
            "/api/generate",
            {"top_logprobs": 10**20},
            400,
            "json: cannot unmarshal number 100000000000000000000 into Go struct field GenerateRequest.top_logprobs of type int",
        ),
        (
            "/api/chat",
            {"think": 5},
            400,
            'think must be a boolean or string ("high", "medium", "low", "max", true, or false)',
        ),
        ("/api/generate", {"top_logprobs": -1}, 400, "top_logprobs must be between 0 and 20"),
    ],
)
def test_refusals_are_worded_as_ollama_does(
    path: str, fields: dict[str, object], status: int, message: str
) -> None:
    assert refusal(path, request(path, **fields)) == (status, message)


def test_a_bare_request_has_ollamas_defaults() -> None:
    assert generate(prompt="hi") == ollama.GenerateRequest(model="m", prompt="hi")
    bare = generate()
    assert (bare.stream, bare.truncate, bare.shift) == (True, True, True)
    assert (bare.keep_alive, bare.think, bare.response_format) == (None, None, None)


def test_all_fields_of_generate_are_read() -> None:
    read = generate(
        prompt="p",
        suffix="s",
        system="y",
        template="t",
        context=[1, 2],
        stream=False,
        images=[PNG, "iVBO\nRw0KGgo="],
        keep_alive="10m",
        options={"num_ctx": 512, "temperature": 0, "banana": 1},
        think="low",
        truncate=False,
        shift=False,
        logprobs=True,
        top_logprobs=3,
        format="json",
    )
    assert (read.prompt, read.suffix, read.system, read.template, read.context) == (
        "p",
        "s",
        "y",
        "t",
        (1, 2),
    )
    assert (read.stream, read.truncate, read.shift, read.think) == (False, False, False, "low")
    assert read.images == (PNG, PNG)
    assert (read.keep_alive, read.load.context, read.sampling, read.ignored) == (
        600.0,
        512,
        {"temperature": 0},
        ("banana",),
    )
    assert (read.logprobs, read.top_logprobs, read.response_format) == (True, 3, JsonObject())


def test_all_parts_of_a_message_are_read() -> None:
    call = {"id": "c", "function": {"name": "f", "arguments": {"b": 1, "a": [1.50, None]}}}
    read = chat(
        messages=[
            {"role": "USER", "content": "hi", "images": [PNG]},
            {"role": "assistant", "thinking": "hm", "tool_calls": [call, {"function": {"name": "g"}}]},
            {"role": "tool", "content": "42", "tool_name": "f", "tool_call_id": "c"},
        ]
    )
    assert read.messages == (
        Message("user", "hi", images=(PNG,)),
        Message(
            "assistant",
            thinking="hm",
            tool_calls=(ToolCall("c", "f", '{"b": 1, "a": [1.5, null]}'), ToolCall("", "g", "{}", 1)),
        ),
        Message("tool", "42", tool_name="f", tool_call_id="c"),
    )
    assert read.images == (PNG,)


def test_a_tool_keeps_its_whole_schema() -> None:
    tool = (
        b'{"type":"function","function":{"name":"f","parameters":{"$ref":"#/a","pattern":"x","default":1.0}}}'
    )
    read = ollama.parse_chat(b'{"model":"m","messages":[{"content":"x"}],"tools":[%s]}' % tool)
    assert read.tools == (msgspec.Raw(tool),)


def test_a_tools_null_is_left_out_as_ollama_reads_it() -> None:
    parameters = {"type": "object", "properties": {"x": {"type": ["string", "null"], "default": None}}}
    bare = {"type": "function", "function": {"name": "f", "parameters": parameters}}
    told = {"type": "function", "function": {"name": "f", "description": None, "parameters": parameters}}
    read = chat(messages=[{"content": "x"}], tools=[told, bare])
    assert [json.loads(bytes(tool)) for tool in read.tools] == [bare, bare]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        (0, 0.0),
        ("0", 0.0),
        (30, 30.0),
        (1.5, 1.5),
        ("1h30m", 5400.0),
        (-1, math.inf),
        ("-1s", math.inf),
    ],
)
def test_keep_alive_is_seconds(value: object, seconds: float | None) -> None:
    assert generate(keep_alive=value).keep_alive == seconds


@pytest.mark.parametrize(
    ("fields", "load", "unload"),
    [
        ({"prompt": "hi"}, False, False),
        ({"prompt": "hi", "keep_alive": 0}, False, False),
        ({}, True, False),
        ({"prompt": ""}, True, False),
        ({"keep_alive": 0}, True, True),
        ({"keep_alive": "0s"}, True, True),
        ({"keep_alive": -1}, True, False),
    ],
)
def test_an_empty_prompt_loads_and_with_keep_alive_zero_unloads(
    fields: dict[str, object], load: bool, unload: bool
) -> None:
    read = generate(**fields)
    assert (read.is_load, read.is_unload) == (load, unload)


def test_a_chat_without_messages_loads() -> None:
    assert chat().is_load
    assert chat(messages=[]).is_load
    assert chat(messages=[], keep_alive=0).is_unload
    assert not chat(messages=[{"content": ""}], keep_alive=0).is_load


@pytest.mark.parametrize(
    ("raw", "wanted"),
    [
        (b'""', None),
        (b"null", None),
        (b'"json"', JsonObject()),
        (b'{ "type": "object" }', JsonSchema(msgspec.Raw(b'{ "type": "object" }'))),
    ],
)
def test_format_is_nothing_json_or_a_schema(raw: bytes, wanted: object) -> None:
    assert ollama.parse_generate(b'{"model":"m","format":%s}' % raw).response_format == wanted


def test_show_takes_the_older_name_for_the_model() -> None:
    assert ollama.parse_show(b'{"name":"a","verbose":true}') == ollama.ShowRequest("a", verbose=True)
    asked = ollama.parse_show(b'{"model":"b","system":"s","template":"t","options":{"top_k":1}}')
    assert asked == ollama.ShowRequest("b", "s", options={"top_k": 1})


@given(
    data=st.binary(max_size=40),
    name=st.sampled_from([one.name for one in replay.load() if one.path in PARSERS and one.body]),
    at=st.floats(0, 1),
)
def test_mutated_requests_are_read_or_refused(data: bytes, name: str, at: float) -> None:
    (exchange,) = replay.load([name])
    good = (exchange.body or b"")[:2000]
    place = round(at * len(good))
    try:
        PARSERS[exchange.path](good[:place] + data + good[place + len(data) :])
    except DialectError as refused:
        assert refused.status in (400, 404)
        assert refused.message


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
_FIELDS = [*ollama.GenerateRequest.__struct_fields__, *ollama.ChatBody.__struct_fields__, "format", "name"]


@pytest.mark.parametrize("path", PARSERS)
@given(fields=st.dictionaries(st.sampled_from(_FIELDS), _JSON))
def test_a_field_of_any_kind_is_read_or_refused(path: str, fields: dict[str, object]) -> None:
    try:
        PARSERS[path](json.dumps(fields).encode())
    except DialectError as refused:
        assert refused.message
