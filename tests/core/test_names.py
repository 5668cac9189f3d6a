"""Model and instance names: parsed once, compared without regard to case."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamamgr.core.errors import InvalidNameError
from llamamgr.core.names import ModelName, is_path, parse_instance_name


@pytest.mark.parametrize(
    ("text", "full", "short"),
    [
        ("llama3", "registry.ollama.ai/library/llama3:latest", "llama3:latest"),
        ("qwen3:4b", "registry.ollama.ai/library/qwen3:4b", "qwen3:4b"),
        ("someone/model", "registry.ollama.ai/someone/model:latest", "someone/model:latest"),
        ("hf.co/org/repo:Q8_0", "hf.co/org/repo:Q8_0", "hf.co/org/repo:Q8_0"),
        ("https://registry.ollama.ai/library/x:latest", "registry.ollama.ai/library/x:latest", "x:latest"),
        ("localhost:5000/ns/m:t", "localhost:5000/ns/m:t", "localhost:5000/ns/m:t"),
    ],
)
def test_defaults_are_filled_in_and_left_out_again(text: str, full: str, short: str):
    name = ModelName.parse(text)
    assert (name.full, name.short) == (full, short)
    assert ModelName.parse(name.short) == name == ModelName.parse(name.full)


def test_case_does_not_tell_names_apart():
    assert ModelName.parse("Qwen3:4B").key == ModelName.parse("registry.ollama.ai/library/qwen3:4b").key


@pytest.mark.parametrize(
    "text",
    ["", ":", "a b", "bad name!", "../x", "a//b", "x:", "-x", "a/b/c/d", "x:y:z", "m" * 81, "x\n", "a.b/c"],
)
def test_what_cannot_be_a_name_is_refused(text: str):
    with pytest.raises(InvalidNameError, match="invalid model name"):
        ModelName.parse(text)


@pytest.mark.parametrize("text", ["/m/a.gguf", "./a", "../a/b.gguf", "~/a.gguf", "a.GGUF", "models/a.gguf"])
def test_a_path_is_told_from_a_name(text: str):
    assert is_path(text)
    assert not any(map(is_path, ("a:latest", "hf:org/repo:a.gguf", "hf.co/org/repo:a.gguf", "org/a.gguf:q4")))


def test_a_path_in_the_place_of_a_name_is_told_what_takes_one():
    with pytest.raises(InvalidNameError) as caught:
        ModelName.parse("/m/n/o/a.gguf")
    assert "run PATH" in caught.value.hint and "models_dirs" in caught.value.hint


@given(st.text(max_size=60))
def test_any_text_is_a_name_or_refused_and_a_name_never_leaves_its_folder(text: str):
    try:
        name = ModelName.parse(text)
    except InvalidNameError:
        return
    assert ModelName.parse(name.full) == name
    assert not {"..", ""} & {name.host, name.namespace, name.model, name.tag}


@pytest.mark.parametrize("text", ["default", "cuda-12.4", "a", "0x_y"])
def test_an_instance_name_is_a_folder_name(text: str):
    assert parse_instance_name(text) == text


@pytest.mark.parametrize("text", ["", "A", "../x", "a/b", ".hidden", "a..b", "x" * 64, "a b", "ä", "a\n"])
def test_what_cannot_name_a_folder_safely_is_refused(text: str):
    with pytest.raises(InvalidNameError, match="instance name"):
        parse_instance_name(text)
