"""Names of models on Hugging Face, and which files they mean."""

from __future__ import annotations

import pytest

from llamamgr.core.digests import parse_digest
from llamamgr.core.errors import InvalidNameError, NotFoundError, UsageError
from llamamgr.core.hub import HubFile, HubSpec, choose, has_tag, parse_hub_name, parse_model_name


def files(*paths: str) -> list[HubFile]:
    return [HubFile(path, 1) for path in paths]


def chosen(spec: str, *paths: str) -> tuple[list[str], str | None]:
    found = choose(files(*paths), parse_hub_name(spec))
    return [file.path for file in found.parts], found.projector.path if found.projector else None


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("hf:o/r", HubSpec("o", "r")),
        ("hf:o/r:Q4_K_M", HubSpec("o", "r", quant="Q4_K_M")),
        ("hf:o/r@abc", HubSpec("o", "r", revision="abc")),
        ("hf:o.x/r-1.5:UD-Q4_K_XL@refs/pr/3", HubSpec("o.x", "r-1.5", "UD-Q4_K_XL", "", "refs/pr/3")),
        ("hf:o/r:sub/f-Q8_0.gguf@v1", HubSpec("o", "r", "", "sub/f-Q8_0.gguf", "v1")),
    ],
)
def test_every_form_is_read(text: str, spec: HubSpec):
    assert parse_hub_name(text) == spec


@pytest.mark.parametrize(
    "text",
    [
        "hf:",
        "hf:o",
        "hf:o/r/x",
        "hf:o/..",
        "hf:o/r:../x.gguf",
        "hf:o/r:/x.gguf",
        "hf:o/r:a/b",
        "hf:o/r@",
        "hf:o/r@a b",
    ],
)
def test_what_is_no_name_is_refused(text: str):
    with pytest.raises(InvalidNameError, match="invalid model name"):
        parse_hub_name(text)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("hf:o/r:Q4_K_M", "hf.co/o/r:Q4_K_M"),
        ("hf:o/r", "hf.co/o/r:latest"),
        ("hf:o/r:sub/f-Q8_0.gguf", "hf.co/o/r:Q8_0"),
        ("hf:o/r:plain.gguf", "hf.co/o/r:plain"),
        ("hf:o/r:Q4_K_M@v1", "hf.co/o/r:Q4_K_M-v1"),
        ("qwen3:4b", "qwen3:4b"),
    ],
)
def test_a_model_is_called_as_ollamas_users_call_it(text: str, name: str):
    assert parse_model_name(text).short == name


def test_a_name_says_whether_it_has_a_tag():
    assert has_tag("hf:o/r:Q4") and has_tag("hf:o/r@v1") and has_tag("x:1b")
    assert not has_tag("hf:o/r") and not has_tag("host:1/x/y")


def test_a_quant_is_found_in_the_name_or_the_folder_whatever_its_case():
    assert chosen("hf:o/r:Q4_K_M", "m-q4_k_m.gguf", "m-Q8_0.gguf") == (["m-q4_k_m.gguf"], None)
    assert chosen("hf:o/r:Q8_0", "Q4_0/m.gguf", "Q8_0/m.gguf") == (["Q8_0/m.gguf"], None)
    assert chosen("hf:o/r:Q4_K", "m-Q4_K_M.gguf", "m-Q4_K.gguf") == (["m-Q4_K.gguf"], None)
    assert chosen("hf:o/r:IQ2_M", "m-UD-IQ2_M.gguf") == (["m-UD-IQ2_M.gguf"], None)


def test_without_a_quant_the_usual_ones_are_preferred():
    assert chosen("hf:o/r", "m-F16.gguf", "m-Q8_0.gguf", "m-Q4_K_M.gguf") == (["m-Q4_K_M.gguf"], None)
    assert chosen("hf:o/r", "m-F16.gguf", "m-Q8_0.gguf") == (["m-Q8_0.gguf"], None)
    assert chosen("hf:o/r", "m-IQ1_S.gguf", "m-F16.gguf") == (["m-F16.gguf"], None)


def test_what_is_no_model_is_not_taken_for_one():
    paths = ("mmproj-Q4_K_M.gguf", "imatrix-Q4_K_M.gguf", "mtp-m-Q4_K_M.gguf", "README.md", "m-Q2_K.gguf")
    assert chosen("hf:o/r", *paths) == (["m-Q2_K.gguf"], "mmproj-Q4_K_M.gguf")


def test_all_parts_come_in_order():
    paths = [f"Q4_K_M/m-Q4_K_M-0000{n}-of-00003.gguf" for n in (3, 1, 2)]
    assert chosen("hf:o/r:Q4_K_M", *paths)[0] == sorted(paths)
    with pytest.raises(NotFoundError, match="00002-of-00003"):
        chosen("hf:o/r", paths[0], paths[1])


def test_the_nearest_projector_is_taken_the_one_of_16_bits_first():
    paths = ("a/m-Q4_K_M.gguf", "mmproj-F16.gguf", "a/mmproj-Q8_0.gguf", "a/mmproj-BF16.gguf")
    assert chosen("hf:o/r", *paths)[1] == "a/mmproj-BF16.gguf"


def test_a_quant_that_is_not_there_is_told_what_is():
    with pytest.raises(NotFoundError) as caught:
        chosen("hf:o/r:Q3_K_S", "m-Q4_K_M.gguf", "m-Q8_0.gguf")
    assert (caught.value.what, caught.value.hint) == ("o/r has no Q3_K_S", "there is: Q4_K_M, Q8_0")


def test_a_digest_is_sha256_and_nothing_else():
    assert parse_digest("sha256:" + "A" * 64) == parse_digest("sha256-" + "a" * 64) == "a" * 64
    for text in (
        "",
        "a" * 64,
        "sha256:" + "a" * 63,
        "sha256:../" + "a" * 61,
        "sha256:" + "a" * 64 + "\n",
        "md5:" + "a" * 64,
    ):
        with pytest.raises(UsageError, match="invalid digest format"):
            parse_digest(text)
