"""Forms of OpenAI's chats that the engine does not know: what it is asked for instead, and what its answers become."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamamgr.wire import openai_chat
from llamamgr.wire.custom_tools import arguments_of
from llamamgr.wire.errors import DialectError
from llamamgr.wire.openai_forms import AS_IT_COMES, Reshaping, Shape

TURN = {"role": "user", "content": "x"}
WEATHER = {"name": "get_weather", "parameters": {"type": "object"}}
CODE = {"type": "custom", "custom": {"name": "code", "description": "runs it"}}
FUNCTION = {"type": "function", "function": WEATHER}


def prepared(**fields: Any) -> tuple[dict[str, Any], Shape]:
    body = {"model": "m", "messages": [TURN], **fields}
    passing = openai_chat.prepare(json.dumps(body).encode())
    return json.loads(passing.body), passing.shape


def refusal(**fields: Any) -> DialectError:
    with pytest.raises(DialectError) as refused:
        prepared(**fields)
    return refused.value


@pytest.mark.parametrize(
    ("call", "tools", "choice"),
    [
        (None, [FUNCTION], None),
        ("auto", [FUNCTION], None),
        ("none", None, None),
        ({"name": "get_weather"}, [FUNCTION], "required"),
    ],
)
def test_functions_are_offered_as_tools_one_call_at_a_time(call: Any, tools: Any, choice: Any) -> None:
    body, shape = prepared(functions=[WEATHER], **({} if call is None else {"function_call": call}))
    assert shape == Shape(functions=True)
    assert (body.get("tools"), body.get("tool_choice"), body["parallel_tool_calls"]) == (tools, choice, False)
    assert not {"functions", "function_call"} & body.keys()


def test_a_function_that_is_not_there_cannot_be_chosen() -> None:
    assert refusal(functions=[WEATHER], function_call={"name": "f"}).param == "tool_choice"


def test_turns_with_functions_become_calls_and_results_of_tools() -> None:
    called = {"name": "get_weather", "arguments": "{}"}
    result = {"role": "function", "name": "get_weather", "content": "rain"}
    asked = {"role": "assistant", "content": None, "function_call": called}
    body, _ = prepared(messages=[TURN, asked, result])
    _, call, answer = body["messages"]
    [made] = call["tool_calls"]
    assert (made["type"], made["function"]) == ("function", called)
    assert (answer["role"], answer["tool_call_id"], answer["content"]) == ("tool", made["id"], "rain")
    assert "function_call" not in call


def test_a_custom_tool_is_a_function_of_one_text() -> None:
    grammar = {"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: A"}}
    bound = {"type": "custom", "custom": {"name": "sum", "format": grammar}}
    body, shape = prepared(tools=[CODE, FUNCTION, bound])
    assert shape == Shape(custom=frozenset({"code", "sum"}))
    code, weather, total = [tool["function"] for tool in body["tools"]]
    assert (code["name"], code["description"], code["parameters"]["required"]) == (
        "code",
        "runs it",
        ["input"],
    )
    assert weather == WEATHER
    assert "start: A" in total["description"]


@pytest.mark.parametrize(
    "choice",
    [
        {"type": "custom", "custom": {"name": "code"}},
        {
            "type": "allowed_tools",
            "allowed_tools": {"mode": "required", "tools": [{"type": "custom", "custom": {"name": "code"}}]},
        },
    ],
)
def test_a_custom_tool_can_be_chosen(choice: Any) -> None:
    body, _ = prepared(tools=[CODE, FUNCTION], tool_choice=choice)
    assert [tool["function"]["name"] for tool in body["tools"]] == ["code"]
    assert body["tool_choice"] == "required"


def test_a_custom_tool_has_a_name() -> None:
    assert refusal(tools=[FUNCTION, {"type": "custom", "custom": {}}]).param == "tools[1].custom.name"
    assert refusal(tools=[{"type": "custom", "custom": {"name": 5}}]).param == "tools[0]"


def test_calls_of_custom_tools_come_back_as_calls_of_functions() -> None:
    made = {"id": "c", "type": "custom", "custom": {"name": "code", "input": 'print("a")'}}
    body, _ = prepared(messages=[TURN, {"role": "assistant", "tool_calls": [made]}, TURN])
    [call] = body["messages"][1]["tool_calls"]
    assert (call["id"], call["function"]["name"]) == ("c", "code")
    assert json.loads(call["function"]["arguments"]) == {"input": 'print("a")'}


def test_refusals_and_files_of_text_are_texts() -> None:
    enclosed = "data:text/plain;base64," + base64.b64encode(b"inside").decode()
    file = {"type": "file", "file": {"file_data": enclosed, "filename": "a.txt"}}
    body, _ = prepared(
        messages=[
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
            {"role": "user", "content": [{"type": "text", "text": "x"}, file]},
        ]
    )
    assert [part["text"] for turn in body["messages"] for part in turn["content"]] == [
        "no",
        "x",
        "a.txt\ninside",
    ]
    missing = {"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}
    assert refusal(messages=[TURN, missing]).param == "messages[1].content[0]"


@pytest.mark.parametrize("top", [{}, {"top_logprobs": 0}, {"top_logprobs": None}])
def test_probabilities_without_rivals_ask_the_engine_for_one(top: dict[str, Any]) -> None:
    body, shape = prepared(logprobs=True, **top)
    assert (body["top_logprobs"], shape) == (1, Shape(without_rivals=True))


def test_rivals_that_were_asked_for_are_told() -> None:
    body, shape = prepared(logprobs=True, top_logprobs=2)
    assert (body["top_logprobs"], shape) == (2, AS_IT_COMES)
    assert prepared(logprobs=False)[1] == AS_IT_COMES


@pytest.mark.parametrize(
    ("stop", "left"), [("", None), ([""], None), (["", "a"], ["a"]), ("a", "a"), (["a"], ["a"]), ([], [])]
)
def test_an_empty_stop_text_stops_nothing(stop: Any, left: Any) -> None:
    assert prepared(stop=stop)[0].get("stop") == left


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"functions": [{"name": "f"}], "function_call": {"name": 5}}, "function_call"),
    ],
)
def test_what_no_engine_can_do_is_refused_and_not_passed_over(fields: dict[str, Any], param: str) -> None:
    assert refusal(**fields).param == param
    assert prepared(modalities=["text"], web_search_options=None)[1] == AS_IT_COMES


# -- answers


def chunk(delta: dict[str, Any], index: int = 0, reason: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"finish_reason": reason, "index": index, "delta": delta, **more}
    return {"id": "i", "object": "chat.completion.chunk", "choices": [choice]}


def call(index: int, arguments: str, name: str = "") -> dict[str, Any]:
    function = {"name": name, "arguments": arguments} if name else {"arguments": arguments}
    first = {"id": f"c{index}", "type": "function"} if name else {}
    return {"tool_calls": [{"index": index, **first, "function": function}]}


def framed(*events: dict[str, Any]) -> bytes:
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


def streamed(shape: Shape, *events: dict[str, Any]) -> list[dict[str, Any]]:
    out = Reshaping(shape).stream(framed(*events) + b"data: [DONE]\n\n")
    *told, done, nothing = out.split(b"\n\n")
    assert (done, nothing) == (b"data: [DONE]", b"")
    return [json.loads(frame.removeprefix(b"data: ")) for frame in told]


def whole(shape: Shape, message: dict[str, Any], reason: str = "tool_calls", **more: Any) -> dict[str, Any]:
    answer = {"id": "i", "choices": [{"finish_reason": reason, "index": 0, "message": message, **more}]}
    told = json.loads(Reshaping(shape).whole(json.dumps(answer).encode()))
    assert told["id"] == "i"
    (choice,) = told["choices"]
    return dict(choice)


def test_a_call_of_a_function_is_told_as_functions_were() -> None:
    made = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    told = whole(Shape(functions=True), {"role": "assistant", "content": "", "tool_calls": [made]})
    assert told["message"] == {"role": "assistant", "content": None, "function_call": made["function"]}
    assert told["finish_reason"] == "function_call"
    chunks = streamed(
        Shape(functions=True),
        chunk(call(0, "{", "f")),
        chunk(call(0, "}")),
        chunk(call(1, "{}", "g")),
        chunk({}, reason="tool_calls"),
    )
    deltas = [one["choices"][0]["delta"] for one in chunks]
    assert deltas == [
        {"function_call": {"name": "f", "arguments": "{"}},
        {"function_call": {"arguments": "}"}},
        {},
        {},
    ]
    assert chunks[-1]["choices"][0]["finish_reason"] == "function_call"


@given(text=st.text(), cut=st.integers(0, 20))
def test_a_call_of_a_custom_tool_is_told_with_its_text_whole_or_streamed(text: str, cut: int) -> None:
    shape, arguments = Shape(custom=frozenset({"code"})), arguments_of(text)
    made = {"id": "c0", "type": "function", "function": {"name": "code", "arguments": arguments}}
    other = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    told = whole(shape, {"role": "assistant", "tool_calls": [made, other]})["message"]["tool_calls"]
    custom = {"id": "c0", "type": "custom", "custom": {"name": "code", "input": text}}
    assert told == [custom, other]
    chunks = streamed(
        shape,
        chunk({"role": "assistant", "content": None}),
        chunk(call(0, arguments[:cut], "code")),
        chunk(call(0, arguments[cut:])),
        chunk(call(1, "{}", "f")),
        chunk({}, reason="tool_calls"),
    )
    pieces = [one for told in chunks for one in told["choices"][0]["delta"].get("tool_calls", ())]
    mine = [one for one in pieces if one["index"] == 0]
    assert (mine[0]["type"], mine[0]["custom"]["name"]) == ("custom", "code")
    assert "".join(one["custom"]["input"] for one in mine) == text
    assert [one["function"] for one in pieces if one["index"] == 1] == [{"name": "f", "arguments": "{}"}]
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_each_choice_has_its_own_text() -> None:
    told = streamed(
        Shape(custom=frozenset({"code"})),
        chunk(call(0, arguments_of("a"), "code"), 0),
        chunk(call(0, arguments_of("b"), "code"), 1),
        chunk({}, 1, "tool_calls"),
        chunk({}, 0, "tool_calls"),
    )
    texts = [
        (one["choices"][0]["index"], piece["custom"]["input"])
        for one in told
        for piece in one["choices"][0]["delta"].get("tool_calls", ())
        if piece["custom"]["input"]
    ]
    assert texts == [(1, "b"), (0, "a")]


def test_probabilities_lose_the_rival_that_was_not_asked_for() -> None:
    rows = {"content": [{"token": "a", "logprob": -1.0, "top_logprobs": [{"token": "b"}]}]}
    bare = [{"token": "a", "logprob": -1.0, "top_logprobs": []}]
    shape = Shape(without_rivals=True)
    assert whole(shape, {"content": "a"}, "stop", logprobs=rows)["logprobs"]["content"] == bare
    (told,) = streamed(shape, chunk({"content": "a"}, logprobs=rows))
    assert told["choices"][0]["logprobs"]["content"] == bare


def test_events_that_tell_nothing_of_this_pass_as_they_came() -> None:
    data = b'data: {"choices": [ {"delta":{"content":"x"} } ] }\n\n'
    assert Reshaping(Shape(functions=True)).stream(data) == data
