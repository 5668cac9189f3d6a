"""What a model says whose prompt a Go template made: thinking and calls are found, in any cut of the text."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamamgr.wire.gotemplate import compiled
from llamamgr.wire.neutral import Event, Finished, TextDelta, ThinkingDelta, ToolCallDelta
from llamamgr.wire.template_answer import Marks, TemplateAnswer, marks_of

DONE = Finished("stop")
TAGGED = Marks(calls="<tool_call>")


def read(reader: TemplateAnswer, *pieces: str) -> tuple[str, str, list[tuple[str, str]]]:
    """Thinking, text and calls of an answer that comes in ``pieces``."""
    events: list[Event] = [event for piece in pieces for event in reader.feed([TextDelta(piece)])]
    events += reader.feed([DONE])
    assert events[-1] is DONE
    return (
        "".join(event.text for event in events if isinstance(event, ThinkingDelta)),
        "".join(event.text for event in events if isinstance(event, TextDelta)),
        [(event.name, event.arguments) for event in events if isinstance(event, ToolCallDelta)],
    )


@pytest.mark.parametrize(
    ("template", "marks"),
    [
        ("{{ range .Messages }}{{ .Content }}{{ end }}", Marks()),
        (
            "{{ range .Messages }}{{ if .Thinking }}<think>\n{{ .Thinking }}\n</think>\n\n{{ end }}{{ .Content }}{{ end }}",
            Marks("<think>", "</think>"),
        ),
        (
            "{{ range .Messages }}A[THINK]{{ .Thinking }}[/THINK] x{{ end }}",
            Marks("A[THINK]", "[/THINK]"),
        ),
        (
            '{{ range .Messages }}{{ if .ToolCalls }}<tool_call>\n{{ range .ToolCalls }}{"name": 1}{{ end }}{{ end }}{{ end }}',
            Marks(calls="<tool_call>"),
        ),
        (
            '{{ range .Messages }}{{ if .ToolCalls }}{{ range .ToolCalls }}{"name": 1}{{ end }}{{ end }}{{ end }}',
            Marks(calls="{"),
        ),
        (
            "{{ range .Messages }}{{ if .ToolCalls }}[TOOL_CALLS] [{{ range .ToolCalls }}{}{{ end }}]{{ end }}{{ end }}",
            Marks(calls="[TOOL_CALLS] ["),
        ),
    ],
)
def test_marks_are_read_off_the_template(template: str, marks: Marks):
    assert marks_of(compiled(template)) == marks


def test_thinking_is_split_off():
    assert read(TemplateAnswer(Marks(), thinks=True), "\n<think>\nhm, <b>\n</think>\n\nyes") == (
        "hm, <b>",
        "yes",
        [],
    )
    assert read(TemplateAnswer(Marks(), thinks=True), "no thought") == ("", "no thought", [])
    assert read(TemplateAnswer(Marks(), thinks=True, prompt="x<think>\n"), "hm</think>yes") == (
        "hm",
        "yes",
        [],
    )
    assert read(TemplateAnswer(Marks(), thinks=True), "<think>cut off") == ("cut off", "", [])
    assert read(TemplateAnswer(Marks()), "<think>a</think>b") == ("", "<think>a</think>b", [])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('ok <tool_call>{"name":"f","arguments":{"a":1}}</tool_call>', ("ok", [("f", '{"a":1}')])),
        (
            '<tool_call>{"name":"f","parameters":{}}</tool_call><tool_call>{"name":"g"}',
            ("", [("f", "{}"), ("g", "{}")]),
        ),
        ('<tool_call>[{"function":{"name":"f","arguments":"{\\"a\\":2}"}}]', ("", [("f", '{"a":2}')])),
        (
            '<tool_call>{"name":"unknown","arguments":{}}',
            ('<tool_call>{"name":"unknown","arguments":{}}', []),
        ),
        ("<tool_call>broken {", ("<tool_call>broken {", [])),
        ("a <tool", ("a <tool", [])),
    ],
)
def test_calls_after_a_mark_are_found_and_anything_else_is_text(
    text: str, told: tuple[str, list[tuple[str, str]]]
):
    assert read(TemplateAnswer(TAGGED, tools=["f", "g"]), text)[1:] == told


def test_without_a_mark_only_an_answer_that_begins_with_json_is_a_call():
    assert read(TemplateAnswer(Marks(), tools=["f"]), ' {"name":"f","parameters":{"x":[1]}}')[2] == [
        ("f", '{"x":[1]}')
    ]
    text = 'so: {"name":"f","parameters":{}}'
    assert read(TemplateAnswer(Marks(), tools=["f"]), text)[1:] == (text, [])
    assert read(TemplateAnswer(Marks(), tools=["f"]), '{"a": 1}')[1:] == ('{"a": 1}', [])


def test_a_long_nest_of_brackets_is_no_work():
    assert read(TemplateAnswer(TAGGED, tools=["f"]), "<tool_call>" + "[" * 100_000)[2] == []
    assert read(TemplateAnswer(TAGGED, tools=["f"]), "<tool_call>" + "[x" * 3_000 + "]" * 3_000)[2] == []


parts = st.sampled_from(
    [
        "<think>",
        "</think>",
        "<tool_call>",
        '{"name":"f","arguments":{"a":"}"}}',
        "</tool_call>",
        " ",
        "\n",
        "hi",
        "<",
        "{",
        "é",
    ]
)


@given(st.lists(parts, max_size=12).map("".join), st.lists(st.integers(1, 7), min_size=1), st.booleans())
def test_any_cut_of_the_text_tells_the_same(text: str, lengths: list[int], has_mark: bool):
    marks = TAGGED if has_mark else Marks()
    pieces, at, turn = [], 0, 0
    while at < len(text):
        pieces.append(text[at : at + lengths[turn % len(lengths)]])
        at, turn = at + len(pieces[-1]), turn + 1
    whole = read(TemplateAnswer(marks, thinks=True, tools=["f"]), text)
    assert read(TemplateAnswer(marks, thinks=True, tools=["f"]), *pieces) == whole


def test_arguments_are_json_again():
    told = read(
        TemplateAnswer(TAGGED, tools=["f"]), '<tool_call>{"name":"f","arguments":{"ä":[1,{"b":null}]}}'
    )
    assert msgspec.json.decode(told[2][0][1]) == {"ä": [1, {"b": None}]}
