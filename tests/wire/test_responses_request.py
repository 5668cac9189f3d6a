"""Requests of ``/v1/responses`` as neutral ones."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamamgr.wire import engine, responses_request
from llamamgr.wire.custom_tools import INPUT
from llamamgr.wire.errors import DialectError
from llamamgr.wire.neutral import JsonObject, JsonSchema, MediaPart, Message, TextPart, ToolCall
from llamamgr.wire.openai_tools import name_of
from llamamgr.wire.responses_memory import Memory, Remembered
from llamamgr.wire.responses_request import ResponseRequest
from llamamgr.wire.responses_stored import Stored, stored
from llamamgr.wire.seals import sealed

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "d",
    "parameters": SCHEMA,
    "strict": True,
}


def encoded(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "input": "hi", **fields}).encode()


def parsed(**fields: Any) -> ResponseRequest:
    return responses_request.parse(encoded(**fields))


def turns(*items: Any) -> tuple[Message, ...]:
    said = parsed(input=list(items)).chat().messages
    assert all(isinstance(turn, Message) for turn in said)
    return said  # type: ignore[return-value]


def test_a_string_is_what_the_user_says_after_the_instructions() -> None:
    said = parsed(instructions="be brief").chat((Message("user", "before"), Message("assistant", "ok")))
    assert said.messages == (
        Message("system", "be brief"),
        Message("user", "before"),
        Message("assistant", "ok"),
        Message("user", "hi"),
    )


def test_system_texts_after_each_other_are_one() -> None:
    asked = parsed(instructions="be brief", input=[{"role": "developer", "content": "be kind"}])
    assert asked.chat((Message("system", "be true"), Message("user", "hi"))).messages == (
        Message("system", "be brief\n\nbe true"),
        Message("user", "hi"),
        Message("system", "be kind"),
    )


def test_a_result_has_the_name_of_a_function_that_was_called_in_an_answer_before() -> None:
    asked = parsed(input=[{"type": "function_call_output", "call_id": "c1", "output": "rain"}])
    before = Message("assistant", tool_calls=(ToolCall("c1", "f", "{}"),))
    assert asked.chat((before,)).messages[1] == Message("tool", "rain", tool_call_id="c1", tool_name="f")


@pytest.mark.parametrize("head", ["", "data:text/plain;base64,"])
def test_a_file_of_text_is_read(head: str) -> None:
    data = head + base64.b64encode("caf\u00e9".encode()).decode()
    said = turns(
        {"role": "user", "content": [{"type": "input_file", "filename": "a.txt", "file_data": data}]}
    )
    assert said == (Message("user", "a.txt\ncaf\u00e9"),)


@pytest.mark.parametrize(
    ("fields", "asks", "top"),
    [
        ({}, False, 0),
        ({"include": ["message.output_text.logprobs"]}, True, 0),
        ({"top_logprobs": 3}, True, 3),
        ({"top_logprobs": 3, "tools": [WEATHER]}, True, 3),
    ],
)
def test_probabilities_are_asked_of_the_engine_where_it_can_tell_them(
    fields: dict[str, Any], asks: bool, top: int
) -> None:
    chat = parsed(**fields).chat()
    assert (chat.logprobs, chat.top_logprobs) == (asks, top)


def test_an_answer_repeats_what_was_asked_with_what_was_left_open() -> None:
    told = parsed(text={"verbosity": "low"}, reasoning={"effort": "low"}, service_tier="flex", user="u").echo
    told = json.loads(msgspec.json.encode(told))
    assert told["text"] == {"format": {"type": "text"}, "verbosity": "low"}
    assert told["reasoning"] == {"effort": "low", "summary": None}
    assert (told["service_tier"], told["user"], told["tools"]) == ("default", "u", [])


def test_what_an_assistant_did_in_several_items_is_one_turn() -> None:
    call = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a":1}'}
    said = turns(
        {"role": "developer", "content": "rules"},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look."}]},
        call,
        {**call, "call_id": "c2"},
        {"type": "function_call_output", "call_id": "c1", "output": "rain"},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "sun"}]},
    )
    calls = (ToolCall("c1", "f", '{"a":1}'), ToolCall("c2", "f", '{"a":1}'))
    assert said == (
        Message("system", "rules"),
        Message("user", "hi"),
        Message("assistant", "I look.", thinking="hm", tool_calls=calls),
        Message("tool", "rain", tool_call_id="c1", tool_name="f"),
        Message("tool", "sun", tool_call_id="c2", tool_name="f"),
    )


@pytest.mark.parametrize(
    "item",
    [
        {"content": [{"type": "reasoning_text", "text": "why"}], "summary": []},
        {"summary": [{"type": "summary_text", "text": "why"}]},
        {"summary": [], "encrypted_content": sealed("why")},
    ],
)
def test_a_thought_comes_back_wherever_the_client_kept_it(item: dict[str, Any]) -> None:
    (turn,) = turns({"type": "reasoning", "id": "rs_1", **item})
    assert turn == Message("assistant", thinking="why")


@pytest.mark.parametrize("foreign", ["gAAAA", sealed("") + "***", sealed("") + "\N{SNOWMAN}", sealed("")])
def test_thoughts_that_somebody_else_sealed_are_passed_over(foreign: str) -> None:
    said = turns(
        {"type": "reasoning", "summary": [], "encrypted_content": foreign}, {"role": "user", "content": "x"}
    )
    assert said == (Message("user", "x"),)


def test_images_keep_their_place() -> None:
    parts = [
        {"type": "input_text", "text": "a"},
        {"type": "input_image", "image_url": "data:image/png;base64,AAAA"},
        {"type": "input_text", "text": "b"},
    ]
    (turn,) = turns({"role": "user", "content": parts})
    assert turn.parts == (TextPart("a"), MediaPart("AAAA"), TextPart("b"))


def test_addresses_are_told_where_fetching_is_allowed_and_then_stand_for_what_was_fetched() -> None:
    image = {"type": "input_image", "image_url": "https://x.example/a.png"}
    data = encoded(input=[{"role": "user", "content": [image]}])
    with pytest.raises(DialectError, match="image URLs are not currently supported"):
        responses_request.parse(data)
    (address,) = responses_request.parse(data, fetching=True).addresses
    again = responses_request.parse(data, fetched={address: "data:image/png;base64,AAAA"})
    assert again.turns[0].parts == (MediaPart("AAAA"),)


@pytest.mark.parametrize(
    ("choice", "names", "word"),
    [
        ("auto", ["get_weather", "b"], "auto"),
        ("none", [], ""),
        ("required", ["get_weather", "b"], "required"),
        ({"type": "function", "name": "b"}, ["b"], "required"),
    ],
)
def test_functions_and_the_choice_among_them(choice: Any, names: list[str], word: str) -> None:
    asked = parsed(
        tools=[WEATHER, {"type": "function", "name": "b"}, {"type": "web_search"}], tool_choice=choice
    )
    assert ([name_of(tool) for tool in asked.tools], asked.tool_choice) == (names, word)
    assert asked.left_out == ("web_search",)
    told = json.loads(msgspec.json.encode(asked.echo["tools"]))
    assert told == [
        WEATHER,
        {"type": "function", "name": "b", "description": None, "parameters": None, "strict": None},
    ]


def test_a_function_is_offered_in_the_chat_apis_form() -> None:
    (tool,) = parsed(tools=[WEATHER]).tools
    function = {"name": "get_weather", "description": "d", "parameters": SCHEMA}
    assert json.loads(bytes(tool)) == {"type": "function", "function": function}


PATCH = {
    "type": "custom",
    "name": "patch",
    "description": "d",
    "format": {"type": "grammar", "syntax": "lark", "definition": "start: A"},
}


@pytest.mark.parametrize(
    "choice",
    [
        {"type": "custom", "name": "patch"},
        {"type": "allowed_tools", "mode": "required", "tools": [{"type": "custom", "name": "patch"}]},
    ],
)
def test_a_custom_tool_is_offered_as_a_function_of_one_text(choice: Any) -> None:
    asked = parsed(tools=[WEATHER, PATCH], tool_choice=choice)
    [tool] = asked.tools
    assert json.loads(bytes(tool))["function"] == {
        "name": "patch",
        "description": "d\n\nThe input is written in this lark grammar:\nstart: A",
        "parameters": INPUT,
    }
    assert (asked.custom, asked.tool_choice, asked.left_out) == ({"patch"}, "required", ())
    told = json.loads(msgspec.json.encode(asked.echo["tools"]))
    assert told == [WEATHER, PATCH]


SPACE = {
    "type": "namespace",
    "name": "mcp__wx",
    "description": "d",
    "tools": [WEATHER, PATCH, {"type": "web_search"}],
}


@pytest.mark.parametrize("choice", ["auto", {"type": "function", "name": "get_weather"}])
def test_tools_of_a_namespace_are_offered_under_both_names(choice: Any) -> None:
    asked = parsed(tools=[SPACE], tool_choice=choice)
    named = [json.loads(bytes(tool))["function"]["name"] for tool in asked.tools]
    assert named == ["mcp__wx__get_weather", "mcp__wx__patch"][: 2 if choice == "auto" else 1]
    assert asked.spaces == {
        "mcp__wx__get_weather": ("mcp__wx", "get_weather"),
        "mcp__wx__patch": ("mcp__wx", "patch"),
    }
    assert (asked.custom, asked.left_out) == ({"mcp__wx__patch"}, ("web_search",))
    [told] = json.loads(msgspec.json.encode(asked.echo["tools"]))
    assert (told["type"], told["name"], len(told["tools"])) == ("namespace", "mcp__wx", 3)


def named(choice: Any, *tools: Any) -> list[str]:
    asked = parsed(tools=list(tools), tool_choice=choice)
    return [json.loads(bytes(tool))["function"]["name"] for tool in asked.tools]


def test_a_choice_means_the_tool_that_it_names() -> None:
    plain = {"type": "function", "name": "search"}
    mcp, other = ({"type": "namespace", "name": name, "tools": [plain]} for name in ("mcp", "other"))
    assert named(plain, plain, mcp) == ["search"]
    assert named(plain, mcp) == ["mcp__search"]
    assert named({**plain, "namespace": "other"}, mcp, other, plain) == ["other__search"]
    assert named({"type": "allowed_tools", "mode": "auto", "tools": [plain]}, mcp) == ["mcp__search"]
    with pytest.raises(DialectError, match="Tool choice 'search' not found"):
        named(plain, mcp, other)


def test_calls_of_a_namespace_come_back_under_the_names_that_were_offered() -> None:
    call = {
        "type": "function_call",
        "call_id": "c",
        "name": "get_weather",
        "namespace": "mcp__wx",
        "arguments": "{}",
    }
    [said] = turns(call)
    assert said == Message("assistant", tool_calls=(ToolCall("c", "mcp__wx__get_weather", "{}"),))


def test_a_call_of_a_custom_tool_and_its_result_come_back() -> None:
    call = {"type": "custom_tool_call", "call_id": "c", "name": "patch", "input": 'a "b"'}
    said = turns(call, {"type": "custom_tool_call_output", "call_id": "c", "output": "done"})
    assert said == (
        Message("assistant", tool_calls=(ToolCall("c", "patch", '{"input":"a \\"b\\""}'),)),
        Message("tool", "done", tool_call_id="c", tool_name="patch"),
    )


def test_text_formats() -> None:
    assert parsed(text={"format": {"type": "text"}}).response_format is None
    assert parsed(text={"format": {"type": "json_object"}}).response_format == JsonObject()
    bound = parsed(text={"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}}).response_format
    assert isinstance(bound, JsonSchema)
    assert json.loads(bytes(bound.schema)) == SCHEMA


@pytest.mark.parametrize(
    ("effort", "think", "word"), [("none", False, "none"), ("minimal", True, "low"), ("high", True, "high")]
)
def test_an_effort_says_whether_to_think(effort: str, think: bool, word: str) -> None:
    asked = parsed(reasoning={"effort": effort})
    assert (asked.think, asked.sampling["reasoning_effort"]) == (think, word)
    assert parsed().think is None


def test_limits_and_the_engines_own_fields_pass() -> None:
    sampling = parsed(max_output_tokens=7, min_p=0.5, temperature=None).sampling
    assert sampling["max_tokens"] == 7
    assert set(sampling) == {"max_tokens", "min_p"}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": None}, "model"),
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"background": True}, "background"),
        ({"conversation": "c"}, "conversation"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"text": {"format": {"type": "xml"}}}, "text.format"),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format"),
        ({"reasoning": {"effort": "banana"}}, "reasoning.effort"),
        ({"truncation": "middle"}, "truncation"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"top_logprobs": -1}, "top_logprobs"),
        ({"metadata": {str(number): "" for number in range(17)}}, "metadata"),
        ({"metadata": {"a": 1}}, "metadata.a"),
        *(
            (
                {"input": [{"role": "user", "content": [{"type": "input_file", **file}]}]},
                "input[0].content[0]",
            )
            for file in (
                {"file_data": "***"},
                {"file_data": "data:application/pdf;base64,JVBERi0xLjc="},
                {"file_data": "/w=="},
                {"file_url": "https://x.example/a.txt"},
            )
        ),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": [{"type": "custom"}]}, "tools[0].name"),
        ({"tools": [{"type": "namespace", "tools": [{"type": "function"}]}]}, "tools[0].tools[0].name"),
        ({"input": [{"type": "custom_tool_call", "name": "f"}]}, "input[0]"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "name": "x"}}, "tool_choice"),
        ({"input": [{"type": "computer_call", "id": "x"}]}, "input[0].type"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role"),
        ({"input": [{"type": "function_call", "name": "f"}]}, "input[0]"),
        (
            {"input": [{"type": "function_call", "name": "f", "call_id": "c", "arguments": "{"}]},
            "input[0].arguments",
        ),
        (
            {"input": [{"type": "function_call", "name": "f", "call_id": "c", "arguments": {}}]},
            "input[0].arguments",
        ),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "input[0].call_id"),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": [5]}]}, "input[0].output[0]"),
        (
            {"input": [{"type": "custom_tool_call", "name": "f", "call_id": "c", "input": 5}]},
            "input[0].input",
        ),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input[0].content[0]"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0]"),
    ],
)
def test_what_cannot_be_asked_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(DialectError) as refused:
        parsed(**fields)
    assert (refused.value.status, refused.value.param) == (400, param)


@given(st.binary(max_size=30), st.floats(0, 1))
def test_mutated_requests_are_read_or_refused(data: bytes, at: float) -> None:
    good = encoded(
        input=[
            {"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png;base64,AAAA"}]},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        ],
        tools=[WEATHER],
        tool_choice={"type": "function", "name": "get_weather"},
        reasoning={"effort": "low", "summary": "auto"},
        text={"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}},
    )
    place = round(at * len(good))
    try:
        asked = responses_request.parse(good[:place] + data + good[place + len(data) :])
    except DialectError as refused:
        assert refused.status == 400
    else:
        assert asked.chat().messages


def remembered(size: int) -> Remembered:
    return Remembered(b"x" * size, (Message("user", "hi"),))


def test_memory_forgets_what_was_asked_for_longest_ago() -> None:
    memory = Memory(most=2)
    for name in "ab":
        memory.keep(name, remembered(1))
    assert memory.recall("a")
    memory.keep("c", remembered(1))
    assert (memory.recall("b"), len(memory)) == (None, 2)
    assert memory.forget("a")
    assert not memory.forget("a")


def test_memory_is_bounded_in_bytes_and_refuses_what_is_too_large_at_all() -> None:
    memory = Memory(limit=1000)
    memory.keep("a", remembered(100))
    memory.keep("b", remembered(500))
    assert memory.recall("a") is None
    memory.keep("c", remembered(5000))
    assert (memory.recall("c"), len(memory)) == (None, 1)
    memory.keep("b", remembered(200))
    memory.keep("b", remembered(300))
    assert len(memory) == 1


def answer(*names: str, owner: str = "") -> Remembered:
    return Remembered(b"{}", (), owner, items=tuple(Stored(name, name.encode()) for name in names))


def test_an_item_is_known_to_its_owner_for_as_long_as_an_answer_has_it() -> None:
    memory = Memory(most=2)
    memory.keep("1", answer("a"))
    memory.keep("2", answer("a", "b"))
    memory.keep("3", answer("a", "b", "c", owner="ann"))
    assert (memory.item("a"), memory.item("b"), memory.item("c")) == (b"a", b"b", None)
    assert (memory.item("c", "ann"), memory.item("c", "bob")) == (b"c", None)
    assert memory.forget("2")
    assert (memory.item("a"), memory.item("a", "ann")) == (None, b"a")
    memory.keep("3", answer("d", owner="ann"))
    assert (memory.item("a", "ann"), memory.item("d", "ann")) == (None, b"d")


REFERENCE = {"type": "item_reference", "id": "msg_1"}


@pytest.mark.parametrize("reference", [REFERENCE, {"id": "msg_1"}])
def test_a_reference_is_what_it_means(reference: Any) -> None:
    said = {"id": "msg_1", "type": "message", "role": "assistant", "content": [{"type": "text", "text": "a"}]}
    known = {"msg_1": json.dumps(said).encode()}
    items = [reference, {"role": "user", "content": "b"}]
    asked = responses_request.parse(encoded(input=items), recall=known.get)
    assert asked.turns == (Message("assistant", "a"), Message("user", "b"))
    assert [item["id"] for item in asked.items] == ["msg_1", None]


def test_a_reference_to_nothing_is_not_found() -> None:
    with pytest.raises(DialectError, match="Item with id 'msg_1' not found") as refused:
        parsed(input=[REFERENCE])
    assert refused.value.status == 404


def test_a_count_needs_neither_model_nor_input_where_it_goes_on_from_an_answer() -> None:
    asked = responses_request.parse_count(b'{"previous_response_id":"resp_1"}')
    assert (asked.model, asked.previous, asked.turns) == ("", "resp_1", ())
    for body, param in ((b'{"input":"hi"}', "model"), (b'{"model":"m"}', "input")):
        with pytest.raises(DialectError) as refused:
            responses_request.parse_count(body)
        assert (refused.value.status, refused.value.param) == (400, param)


@pytest.mark.parametrize("data", ["", "***", "\N{SNOWMAN}", "\ufffd", 1, None, []])
def test_audio_that_is_no_base64_is_refused(data: Any):
    part = {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}
    with pytest.raises(DialectError, match="holds no base64 audio") as refused:
        parsed(input=[{"role": "user", "content": [part]}])
    assert refused.value.param == "input[0].content[0]"


def test_base64_in_lines_reaches_the_engine_in_one():
    lines = "iVBORw0KGgoAAA\nANSUhEUg==\r\n"
    image = {"type": "input_image", "image_url": f"data:image/png;base64,{lines}"}
    audio = {"type": "input_audio", "input_audio": {"data": lines, "format": "wav"}}
    asked = parsed(input=[{"role": "user", "content": [image, audio]}])
    whole = "iVBORw0KGgoAAAANSUhEUg=="
    assert asked.turns[0].parts == (MediaPart(whole), MediaPart(whole, is_sound=True))
    engine.chat_call(asked.chat())


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("call_abcdef123", "abcdef123"),
        ("call_abcdef12", "call_abcdef12"),
        ("call_abc.ef123", "call_abc.ef123"),
    ],
)
def test_an_id_of_the_models_own_comes_back_as_it_gave_it(given: str, told: str) -> None:
    call, result = turns(
        {"type": "function_call", "call_id": given, "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": given, "output": "x"},
    )
    assert (call.tool_calls[0].id, result.tool_call_id, result.tool_name) == (told, told, "f")


def test_what_openais_servers_did_is_passed_over_and_what_clients_did_is_not() -> None:
    asked = {"role": "user", "content": "x"}
    search: dict[str, Any] = {"type": "web_search_call", "status": "completed", "action": {"query": "y"}}
    assert turns(search, asked) == (Message("user", "x"),)
    kept = stored(parsed(input=[search, asked]).items, lambda: "1")
    assert [json.loads(item.data)["type"] for item in kept] == ["web_search_call", "message"]
    found = {
        "type": "tool_search_call",
        "call_id": None,
        "arguments": {"query": "y"},
        "output": [1],
        "input": 2,
    }
    assert turns(found, asked) == (Message("user", "x"),)
    with pytest.raises(DialectError, match="local_shell_call"):
        turns({"type": "local_shell_call"}, asked)
