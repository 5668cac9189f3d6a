"""Modelfiles: grammar, faults with their lines, and a round trip."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamamgr.core.errors import UsageError
from llamamgr.core.modelfile import (
    DEPRECATED,
    Modelfile,
    checked_parameters,
    parse_modelfile,
    write_modelfile,
)

WHOLE = '''# a comment
FROM llama3.2
from ./mmproj.gguf
ADAPTER ./lora.gguf

PARAMETER temperature 0.7
parameter num_ctx 4096
PARAMETER use_mmap false
PARAMETER stop "<|end|>"
PARAMETER stop  two words
PARAMETER stop 42
PARAMETER mirostat 1
TEMPLATE """{{ .System }}
# no comment here
{{ .Prompt }}"""
SYSTEM You are "terse".
MESSAGE user Is Ulm a city?
MESSAGE Assistant """yes
it is"""
LICENSE "MIT"
LICENSE """
Apache
"""
RENDERER x
REQUIRES 0.14.0
'''


def test_everything_that_a_modelfile_says_is_read():
    assert parse_modelfile(WHOLE) == Modelfile(
        bases=("llama3.2", "./mmproj.gguf"),
        adapters=("./lora.gguf",),
        template="{{ .System }}\n# no comment here\n{{ .Prompt }}",
        system='You are "terse".',
        parameters={
            "temperature": 0.7,
            "num_ctx": 4096,
            "use_mmap": False,
            "stop": ["<|end|>", "two words", "42"],
        },
        messages=(("user", "Is Ulm a city?"), ("assistant", "yes\nit is")),
        licenses=("MIT", "\nApache\n"),
        renderer="x",
        requires="0.14.0",
        ignored=("mirostat",),
    )


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_any_encoding_with_a_mark_is_read_and_line_ends_are_as_they_come(encoding: str):
    text = 'FROM x\r\nSYSTEM """ä\r\nb"""\r\n'.encode(encoding)
    assert parse_modelfile(text).system == "ä\nb"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SYSTEM x", "no FROM line"),
        ("", "no FROM line"),
        ("FROM x\n\nBLA y", '(line 3): command must be one of "from"'),
        ("FROM x\nPARAMETER temprature 1", "(line 2): unknown parameter 'temprature'"),
        ("FROM x\nPARAMETER temperature warm", "(line 2): invalid float value [warm]"),
        ("FROM x\nPARAMETER num_ctx 1.5", "(line 2): invalid int value [1.5]"),
        ("FROM x\nPARAMETER temperature nan", "(line 2): invalid float value [nan]"),
        ("FROM x\nPARAMETER use_mmap maybe", "(line 2): invalid bool value [maybe]"),
        ("FROM x\nMESSAGE tool y", '(line 2): message role must be one of "system", "user", or "assistant"'),
        ('FROM x\nPARAMETER stop "', "(line 2): unexpected EOF"),
        ('FROM x\nSYSTEM """a\nb', "(line 2): unexpected EOF"),
        ("FROM x\nSYSTEM", "(line 2): unexpected EOF"),
        (b"FROM \xff", "the Modelfile is not UTF-8"),
    ],
)
def test_a_fault_is_named_with_its_line(text: str | bytes, message: str):
    with pytest.raises(UsageError) as caught:
        parse_modelfile(text)
    assert caught.value.what.startswith(message)


def test_a_misspelt_parameter_is_told_what_was_meant():
    with pytest.raises(UsageError) as caught:
        parse_modelfile("FROM x\nPARAMETER temprature 1")
    assert caught.value.hint == "did you mean temperature?"


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"temperature": "hot"}, 'option "temperature" must be of type float32'),
        ({"num_ctx": True}, 'option "num_ctx" must be of type integer'),
        ({"num_ctx": float("inf")}, 'option "num_ctx" must be of type integer'),
        ({"use_mmap": 1}, 'option "use_mmap" must be of type boolean'),
        ({"stop": [1]}, 'option "stop" must be of an array of strings'),
        ({"what": 1}, "unknown parameter 'what'"),
    ],
)
def test_parameters_given_as_values_are_checked(given_: dict[str, object], message: str):
    with pytest.raises(UsageError) as caught:
        checked_parameters(given_)
    assert caught.value.what == message


def test_good_values_come_through_and_dead_ones_do_not():
    asked = {"temperature": 1, "num_ctx": 4096.0, "stop": "X", "seed": None, **dict.fromkeys(DEPRECATED, 1)}
    assert checked_parameters(asked) == {"temperature": 1, "num_ctx": 4096, "stop": ["X"]}


def texts(**more: int) -> st.SearchStrategy[str]:
    letters = st.characters(codec="utf-8", exclude_characters="\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029")
    # three quotes at a line's end close a text, whatever is meant
    return st.text(letters, **more).filter(lambda text: '""' not in text and not text.startswith('"'))


@given(
    st.builds(
        Modelfile,
        bases=st.lists(texts(min_size=1), min_size=1, max_size=2).map(tuple),
        template=st.none() | texts(),
        system=st.none() | texts(),
        parameters=st.fixed_dictionaries(
            {},
            optional={
                "temperature": st.floats(0, 2),
                "seed": st.integers(-(2**31), 2**31),
                "use_mmap": st.booleans(),
                "stop": st.lists(texts(min_size=1), min_size=1, max_size=3),
            },
        ),
        messages=st.lists(
            st.tuples(st.sampled_from(["user", "system", "assistant"]), texts()), max_size=3
        ).map(tuple),
        licenses=st.lists(texts(), max_size=2).map(tuple),
    )
)
def test_what_is_written_is_read_again(modelfile: Modelfile):
    assert parse_modelfile(write_modelfile(modelfile)) == modelfile
