"""Go templates: what they write, and Go's words for what cannot be parsed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamamgr.wire.gotemplate import TemplateError, compiled
from llamamgr.wire.gotemplate_render import render
from llamamgr.wire.gotemplate_syntax import parse
from llamamgr.wire.gotemplate_values import FUNCTIONS
from llamamgr.wire.neutral import Message, ToolCall

TALK = (
    Message("system", "S"),
    Message("user", "U"),
    Message("assistant", "A"),
    Message("user", "V"),
)
WEATHER = msgspec.Raw(
    b'{"type":"function","function":{"name":"weather","description":"of a <city>","parameters":{"type":"object",'
    b'"required":["city"],"properties":{"city":{"type":"string","description":"name","minLength":1},'
    b'"days":{"type":["integer","null"],"enum":[1,2]}}}}}'
)
CHATML = """{{- range $i, $_ := .Messages }}
{{- $last := eq (len (slice $.Messages $i)) 1 -}}
<|im_start|>{{ .Role }}
{{ .Content }}
{{- if and (ne .Role "assistant") $last }}<|im_end|>
<|im_start|>assistant
{{ else if not $last }}<|im_end|>
{{ end }}
{{- end }}"""
LLAMA2 = "[INST] {{ if .System }}<<SYS>>{{ .System }}<</SYS>>\n\n{{ end }}{{ .Prompt }} [/INST] {{ .Response }} </s>"


def write(text: str, **data: Any) -> str:
    """The template over plain values, whatever it names."""
    return render(compiled(text + "{{ .Response }}").nodes, {"Response": "", **data}, ("today", "yesterday"))


@pytest.mark.parametrize(
    ("template", "prompt"),
    [
        (
            CHATML,
            "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\nA<|im_end|>\n"
            "<|im_start|>user\nV<|im_end|>\n<|im_start|>assistant\n",
        ),
        (LLAMA2, "[INST] <<SYS>>S<</SYS>>\n\nU [/INST] A </s>[INST] V [/INST] "),
        ("{{ .Prompt }}", "UAV"),
        ("{{ if .System }}{{ .System }}|{{ end }}{{ .Prompt }}>", "S|U>AV>"),
    ],
)
def test_a_conversation_becomes_the_prompt_that_ollama_makes(template: str, prompt: str):
    assert compiled(template).prompt(TALK) == prompt


def test_an_unfinished_answer_is_continued_by_an_old_template():
    assert compiled(LLAMA2).prompt((*TALK, Message("assistant", "Beg"))).endswith("[INST] V [/INST] Beg")


def test_neighbours_of_one_role_are_joined_but_not_results_of_tools():
    messages = (Message("user", "a"), Message("user", "b"), Message("tool", "1"), Message("tool", "2"))
    assert compiled("{{ range .Messages }}({{ .Content }}){{ end }}").prompt(messages) == "(a\n\nb)(1)(2)"


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("a {{- 1 -}} b", "a1b"),
        ("a  {{/* c */}}  b", "a    b"),
        ("a  {{- /* c */ -}}  b", "ab"),
        ("{{ if .No }}x{{ else if .Yes }}y{{ else }}z{{ end }}", "y"),
        ("{{ with .Yes }}{{ . }}{{ else }}none{{ end }}", "yes"),
        ("{{ with .No }}{{ . }}{{ else }}none{{ end }}", "none"),
        ("{{ range .List }}{{ . }},{{ else }}none{{ end }}", "a,b,"),
        ("{{ range .None }}{{ . }},{{ else }}none{{ end }}", "none"),
        ("{{ range $i, $x := .List }}{{ $i }}{{ $x }}{{ end }}", "0a1b"),
        ("{{ range $k, $v := .Map }}{{ $k }}={{ $v }};{{ end }}", "x=1;y=2;"),
        ("{{ range 3 }}{{ . }}{{ end }}", "012"),
        (
            "{{ range .List }}{{ if eq . `b` }}{{ break }}{{ end }}{{ . }}{{ end }}{{ range .List }}{{ continue }}!{{ end }}",
            "a",
        ),
        ("{{ $x := 1 }}{{ if true }}{{ $x = 2 }}{{ $y := 3 }}{{ end }}{{ $x }}", "2"),
        ("{{ $.Yes }}{{ range .List }}{{ $.Yes }}{{ end }}", "yesyesyes"),
        ("{{ .Map.x }}{{ (index .List 1) }}{{ index .Map `y` }}", "1b2"),
        ("{{ .Missing }}{{ if .Missing }}x{{ end }}", "<no value>"),
        ("{{ len .List }}{{ len `é` }}{{ .List | len }}", "222"),
        ("{{ slice .Yes 1 }}{{ slice .List 0 1 }}", "es[a]"),
        ("{{ and .Yes 0 }}{{ or .No `d` }}", "0d"),
        ("{{ not .Yes }}{{ eq 1 2 1 }}{{ ne `a` `b` }}{{ lt 1 2 }}{{ ge 1.5 1.5 }}", "falsetruetruetruetrue"),
        ("{{ json .Map }}{{ json `<a>` }}", '{"x":1,"y":2}"<a>"'),
        (
            "{{ printf `%s|%5d|%-3s|%q|%v|%%|%.1f` .Yes 7 `a` `b` .List 2.25 }}",
            'yes|    7|a  |"b"|[a b]|%|2.2',
        ),
        ("{{ print 1 2 `a` 3 }}{{ println `x` 1 }}", "1 2a3x 1\n"),
        ('{{ "\\u00e9\\t\\"" }}{{ \'a\' }}{{ 0x10 }}{{ 1e3 }}{{ -2 }}', 'é\t"97161000-2'),
        ("{{ currentDate }} {{ yesterdayDate }}", "today yesterday"),
        ("{{ .Map }}{{ .List }}{{ true }}", "map[x:1 y:2][a b]true"),
    ],
)
def test_constructs_write_what_go_writes(text: str, written: str):
    data = {"Yes": "yes", "No": "", "List": ["a", "b"], "None": [], "Map": {"y": 2, "x": 1}}
    assert write(text, **data) == written


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ .Prompt", "template: :1: unclosed action"),
        ("a\nb {{ .Prompt", "template: :2: unclosed action"),
        ("{{ if .A }}", "template: :1: unexpected EOF"),
        ("{{ end }}", "template: :1: unexpected {{end}}"),
        ("{{ else }}", "template: :1: unexpected {{else}}"),
        ("{{ if }}x{{ end }}", "template: :1: missing value for if"),
        ("{{ }}", "template: :1: missing value for command"),
        ("{{ foo }}", 'template: :1: function "foo" not defined'),
        ("{{ $x }}", 'template: :1: undefined variable "$x"'),
        ("{{ if true }}{{ $x := 1 }}{{ end }}{{ $x }}", 'template: :1: undefined variable "$x"'),
        ('{{ "a }}', "template: :1: unterminated quoted string"),
        ("{{ `a }}", "template: :1: unterminated raw quoted string"),
        ("{{/* a", "template: :1: unclosed comment"),
        ("{{ 1 | 2 }}", "template: :1: non executable command in pipeline stage 2"),
        ("{{ break }}", "template: :1: {{break}} outside {{range}}"),
        ('{{ define "a" }}{{ end }}', "template: :1: {{define}} is not supported here"),
        ('{{ template "a" }}', "template: :1: {{template}} is not supported here"),
        ("{{ .A | html }}", 'template: the function "html" is not supported here'),
        ('{{ "\\q" }}', 'template: :1: invalid syntax: "\\q"'),
    ],
)
def test_what_cannot_be_parsed_is_refused_in_gos_words(text: str, message: str):
    with pytest.raises(TemplateError) as caught:
        compiled(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ range .Messages }}{{ .Nope }}{{ end }}", "can't evaluate field Nope in type api.Message"),
        ("{{ index .Messages 9 }}", "index out of range: 9"),
        ("{{ .Messages.Role }}", "can't evaluate field Role in type"),
        ("{{ range .Messages }}{{ eq .Role 1 }}{{ end }}", "incompatible types for comparison"),
        ("{{ range .Messages }}{{ .Role 1 }}{{ end }}", "can't give argument to non-function"),
        ("{{ .Messages }}{{ range 10000 }}{{ range 10000 }}{{ end }}{{ end }}", "steps"),
        ("{{ .Messages }}{{ range 900000000 }}{{ end }}", "900,000,000 numbers"),
    ],
)
def test_what_cannot_be_rendered_is_an_error_and_not_a_wrong_prompt(text: str, message: str):
    with pytest.raises(TemplateError, match=r"\Atemplate: ") as caught:
        compiled(text).prompt(TALK)
    assert message in str(caught.value)


def test_tools_are_told_whole_and_their_parts_can_be_named():
    def tell(text: str) -> str:
        return compiled(text + "{{ range .Messages }}{{ end }}").prompt(TALK, (WEATHER,))

    assert tell("{{ .Tools }}") == f"[{bytes(WEATHER).decode()}]"
    assert tell("{{ range .Tools }}{{ json . }}{{ end }}") == bytes(WEATHER).decode()
    assert '"minLength":1' in tell("{{ range .Tools }}{{ .Function.Parameters }}{{ end }}")
    inner = "{{ range $n, $p := .Function.Parameters.Properties }}{{ $n }}: {{ $p.Type | toTypeScriptType }}; {{ end }}"
    assert tell("{{ range .Tools }}" + inner + "{{ end }}") == "city: string; days: number | null; "


def test_calls_of_earlier_turns_are_written_with_their_arguments_in_order():
    call = ToolCall("1", "weather", '{"city":"Ulm","days":2}')
    text = "{{ range .Messages }}{{ range .ToolCalls }}{{ .Function.Name }}{{ .Function.Arguments }}{{ end }}{{ end }}"
    message = Message("assistant", "", tool_calls=(call,))
    assert compiled(text).prompt((message,)) == 'weather{"city":"Ulm","days":2}'


def test_what_a_template_names_tells_what_the_model_can():
    full = compiled("{{ .Suffix }}{{ .Tools }}{{ range .Messages }}{{ .Thinking }}{{ end }}")
    assert (full.can_insert, full.can_call_tools, full.can_think) == (True, True, True)
    assert not (plain := compiled("{{ .Prompt }}")).can_insert
    assert (plain.can_call_tools, plain.can_think) == (False, False)
    assert compiled("{{ range .Messages }}{{ $.Tools }}{{ end }}").can_call_tools


def test_a_suffix_is_filled_in_by_the_template_that_knows_it():
    template = compiled("<PRE>{{ .Prompt }}<SUF>{{ .Suffix }}<MID>")
    assert template.fill_in("a(", ")") == "<PRE>a(<SUF>)<MID>"


def test_thinking_is_told_to_the_template():
    text = "{{ range .Messages }}{{ end }}{{ .Think }}{{ .ThinkLevel }}{{ .IsThinkSet }}"
    assert compiled(text).prompt(TALK, think="high") == "truehightrue"
    assert compiled(text).prompt(TALK, think=None) == "falsefalse"


WORDS = [
    "{{",
    "}}",
    "{{-",
    "-}}",
    "if",
    "end",
    "else",
    "range",
    ".Messages",
    ".A",
    "$x",
    ":=",
    "|",
    "(",
    ")",
    '"',
    "1",
    "eq",
    "len",
    "text",
    "`",
    "'",
    ",",
    "with",
    "break",
]
pieces = st.sampled_from([*WORDS, " ", "\n", "{{ end }}", "{{ range .Messages }}"])


@given(st.lists(pieces, max_size=30).map("".join))
def test_any_text_is_rendered_or_refused_and_nothing_else(text: str):
    try:
        compiled(text).prompt(TALK)
    except TemplateError as error:
        assert str(error).startswith("template: ")


RECORDED = json.loads((Path(__file__).parent / "recorded" / "gotemplates.json").read_text("utf-8"))


@pytest.mark.parametrize("case", RECORDED["cases"], ids=lambda case: case["template"][:40])
def test_templates_do_what_gos_own_package_did(case: dict[str, Any]):
    """Recorded from Go 1.19's ``text/template``, over templates made at random."""
    try:
        nodes = parse(case["template"], FUNCTIONS)
    except TemplateError as error:
        assert str(error) == case["parse"]
        return
    if "exec" in case:
        with pytest.raises(TemplateError):
            render(nodes, RECORDED["data"], ("today", "yesterday"))
        return
    assert render(nodes, RECORDED["data"], ("today", "yesterday")) == case["text"]
