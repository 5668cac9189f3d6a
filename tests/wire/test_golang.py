"""JSON as Go writes and refuses it."""

from __future__ import annotations

import base64
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamamgr.wire import golang
from llamamgr.wire.errors import DialectError


class Sample(msgspec.Struct):
    name: str | None = None
    count: int | None = None
    share: float | None = None
    on: bool | None = None
    words: list[str] | None = None
    deep: dict[str, object] | None = None
    ids: list[int] | None = None
    sums: dict[str, int] | None = None


def refusal(body: bytes) -> str:
    with pytest.raises(DialectError) as refused:
        golang.decode(body, Sample, "Sample", {"words": "[]api.Word"})
    assert refused.value.status == 400
    return refused.value.message


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (0.0, "0"),
        (-17.8599910736084, "-17.8599910736084"),
        (3.0, "3"),
        (1e-5, "0.00001"),
        (1e-6, "0.000001"),
        (1.5e-7, "1.5e-7"),
        (1e20, "100000000000000000000"),
        (1e21, "1e+21"),
    ],
)
def test_numbers_have_the_shortest_form(value: float, wanted: str) -> None:
    assert bytes(golang.number(value)) == wanted.encode()


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (0.0, "0"),
        (-0.5, "-0.5"),
        (3, "3"),
        (0.0001, "0.0001"),
        (0.00001, "1e-05"),
        (-1.5e-7, "-1.5e-07"),
        (999999, "999999"),
        (131072, "131072"),
        (1e6, "1e+06"),
        (1234567, "1.234567e+06"),
        (123456.75, "123456.75"),
        (1e21, "1e+21"),
        (1e100, "1e+100"),
    ],
)
def test_numbers_are_printed_with_an_exponent_where_go_prints_one(value: float, wanted: str) -> None:
    assert golang.general(value) == wanted


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_printed_numbers_keep_their_value(value: float) -> None:
    assert float(golang.general(value)) == value


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_keep_their_value(value: float) -> None:
    assert float(bytes(golang.number(value))) == value


@given(st.text(st.characters(codec="utf-8")))
def test_escaped_text_is_plain_ascii_html_and_keeps_its_meaning(text: str) -> None:
    written = golang.encode({text: [text]})
    assert json.loads(written) == {text: [text]}
    assert not set("<>&\u2028\u2029") & set(written.decode())


def test_quoting_shows_what_cannot_be_printed() -> None:
    assert golang.quote(b'"xml"') == '"\\"xml\\""'
    assert golang.quote("a\\b\n\x01é".encode()) == '"a\\\\b\\n\\x01é"'
    assert golang.quote("\x7f\u00a0\u200b \U0001f600".encode()) == '"\\x7f\\u00a0\\u200b \U0001f600"'
    assert golang.quote(b"\xff") == '"\\xff"'


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "missing request body"),
        (b" \n", "missing request body"),
        (b'{"name":"a', "unexpected EOF"),
        (b"[]", "json: cannot unmarshal array into Go value of type api.Sample"),
        (b'"x"', "json: cannot unmarshal string into Go value of type api.Sample"),
        (b'{"name":5}', "json: cannot unmarshal number into Go struct field Sample.name of type string"),
        (b'{"count":"5"}', "json: cannot unmarshal string into Go struct field Sample.count of type int"),
        (b'{"count":1.5}', "json: cannot unmarshal number 1.5 into Go struct field Sample.count of type int"),
        (
            b'{"count": 1e3}',
            "json: cannot unmarshal number 1e3 into Go struct field Sample.count of type int",
        ),
        (
            b'{"ids":[1,-2.0]}',
            "json: cannot unmarshal number -2.0 into Sample.ids.1 of type int",
        ),
        (
            b'{"sums":{"b":2,"a":1.5}}',
            "json: cannot unmarshal number 1.5 into Go struct field Sample.sums.a of type int",
        ),
        (b'{"share":true}', "json: cannot unmarshal bool into Go struct field Sample.share of type float64"),
        (b'{"on":{}}', "json: cannot unmarshal object into Go struct field Sample.on of type bool"),
        (
            b'{"words":"x"}',
            "json: cannot unmarshal string into Go struct field Sample.words of type []api.Word",
        ),
        (b'{"words":["a",1]}', "json: cannot unmarshal number into Sample.words.1 of type string"),
        (
            b'{"deep":[]}',
            "json: cannot unmarshal array into Go struct field Sample.deep of type map[string]interface {}",
        ),
        (b"{'a':1}", "invalid character '\\'' looking for beginning of object key string"),
        (b"<html>", "invalid character '<' looking for beginning of value"),
        (b'{"deep":{"a":' + b"[" * 100_000, "exceeded max depth"),
    ],
)
def test_refusals_are_worded_as_go_does(body: bytes, message: str) -> None:
    assert refusal(body) == message


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        (b"null", Sample()),
        (b'{"name":null,"else":1}', Sample()),
        (b'{"name":"a"} trailing', Sample("a")),
        (b'{"name":"a"}{"name":"b"}', Sample("a")),
        (rb'{"name":"a\ud800b"}', Sample("a\ufffdb")),
        (rb'{"name":"\ud83d\ude00\udc00\\ud800"}', Sample("\U0001f600\ufffd\\ud800")),
        (b'{"name":"a\xffb"}', Sample("a\ufffdb")),
    ],
)
def test_what_go_passes_over_is_passed_over(body: bytes, wanted: Sample) -> None:
    assert golang.decode(body, Sample, "Sample", {}) == wanted


@given(st.binary(max_size=60))
def test_any_bytes_give_a_value_or_a_refusal(body: bytes) -> None:
    try:
        assert isinstance(golang.decode(body, Sample, "Sample", {}), Sample)
    except DialectError as refused:
        assert refused.message


@given(st.binary(max_size=40))
def test_real_base64_is_legal_with_line_ends_too(data: bytes) -> None:
    text = base64.b64encode(data).decode()
    assert golang.illegal_base64_at(text) == -1
    assert golang.illegal_base64_at("\r\n".join(text)) == -1


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("!!!", 0),
        ("abcd!", 4),
        ("data:image/png;base64,aaaa", 4),
        ("abcde", 4),
        ("ab=c", 3),
        ("a===", 1),
        ("ab==c", 4),
    ],
)
def test_illegal_base64_is_located(text: str, at: int) -> None:
    assert golang.illegal_base64_at(text) == at


@given(st.text(st.sampled_from("aB+/=\r\n !é"), max_size=12))
def test_what_is_legal_can_be_decoded(text: str) -> None:
    if golang.illegal_base64_at(text) == -1:
        bare = text.replace("\r", "").replace("\n", "")
        assert len(base64.b64decode(bare, validate=True)) == len(bare) // 4 * 3 - bare.count("=")


class Inner(msgspec.Struct):
    role: str | None = None
    raw: msgspec.Raw = msgspec.Raw(b"")
    within: list[Inner] | None = None


class Outer(msgspec.Struct):
    model: str | None = None
    list_: list[Inner] | None = msgspec.field(default=None, name="list")
    text: str | list[Inner] | None = None
    options: dict[str, int] | None = None


def test_fields_are_known_whatever_their_case() -> None:
    body = {
        "Model": "m",
        "LIST": [{"Role": "R", "RAW": {"Role": 1}, "Within": [{"rOLE": "S"}]}],
        "Text": [{"Role": "T"}],
        "Options": {"Top": 1},
        "Unknown": 2,
    }
    read, sound = golang.decode_sound(json.dumps(body).encode(), Outer, "Outer", {})
    (inner,) = read.list_ or ()
    assert (read.model, inner.role, json.loads(bytes(inner.raw)), inner.within) == (
        "m",
        "R",
        {"Role": 1},
        [Inner("S")],
    )
    assert (read.text, read.options) == ([Inner("T")], {"Top": 1})
    assert list(json.loads(sound)) == ["model", "list", "text", "options", "Unknown"]


def test_a_body_that_is_known_stays_byte_for_byte() -> None:
    for body in (b'{ "model": "m", "else": { "Top": 1 } }', b'{ "Else": 1.50 }', b"{}"):
        assert golang.decode_sound(body, Outer, "Outer", {})[1] == body


def test_of_a_field_in_two_spellings_the_last_counts() -> None:
    for body, wanted in (
        ('{"model": "m", "MODEL": "n"}', "n"),
        ('{"MODEL": "n", "model": "m"}', "m"),
        ('{"model": "m", "else": "Hello \\"Model\\": x"}', "m"),
    ):
        assert golang.decode(body.encode(), Outer, "Outer", {}).model == wanted


@pytest.mark.parametrize(
    "letters", [b"A" * 4_000_000, b"aB" * 2_000_000, b"MKTAYIAKQR" * 400_000, b'\\"A' * 1_000_000]
)
def test_a_long_run_of_letters_is_looked_through_once(letters: bytes) -> None:
    for body in (b'{"model":"%b"}', b'{"text":"%b"}', b'{"list":[{"role":"%b"}],"Model":"m"}'):
        for struct in ("Outer", "openai.Outer"):
            read = golang.decode(body % letters, Outer, struct, {})
            assert read.model is None or len(read.model) in (1, len(json.loads(b'"%b"' % letters)))


def test_bodies_of_other_apis_are_looked_through_only_where_something_is_missing() -> None:
    body = b'{"model":"m","TEXT":"t"}'
    assert golang.decode(body, Outer, "Outer", {}).text == "t"
    assert golang.decode(body, Outer, "openai.Outer", {}).text is None
    assert golang.decode(b'{"Model":"m","TEXT":"t"}', Outer, "openai.Outer", {}).text == "t"


def test_null_is_the_zero_of_any_type() -> None:
    body = b'{"words":["a",null],"ids":[null,2],"sums":{"a":null},"name":null}'
    read = golang.decode(body, Sample, "Sample", {})
    assert (read.words, read.ids, read.sums) == (["a", ""], [0, 2], {"a": 0})
    assert golang.decode(b'{"list":[null,{"Role":"a"}]}', Outer, "Outer", {}).list_ == [Inner(), Inner("a")]
    with pytest.raises(DialectError, match="got null"):  # which clients of OpenAI do not know
        golang.decode(body, Sample, "openai.Sample", {})


def test_a_field_in_capitals_may_be_ill_typed_too() -> None:
    with pytest.raises(DialectError) as refused:
        golang.decode(b'{"MODEL":5}', Outer, "Outer", {})
    assert (
        refused.value.message
        == "json: cannot unmarshal number into Go struct field Outer.model of type string"
    )
