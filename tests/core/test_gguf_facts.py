"""What headers tell: kinds of files, quantisation, capabilities."""

from __future__ import annotations

from typing import Any

import pytest

from llamamgr.core import gguf_facts
from llamamgr.core.gguf import Header, read_header
from llamamgr.core.quants import split_quant
from llamamgr.models.writer import F32Tensor, gguf_bytes

WEIGHT = F32Tensor("blk.0.w", (4, 2), bytes(32))


def header(*tensors: F32Tensor, **metadata: Any) -> Header:
    named = {key.replace("__", "."): value for key, value in metadata.items()}
    return read_header(gguf_bytes({"general.architecture": "llama"} | named, tensors or [WEIGHT]))


@pytest.mark.parametrize(
    ("metadata", "stem", "kind"),
    [
        ({}, "m", "model"),
        ({"general__type": "model"}, "m", "model"),
        ({"general__architecture": "clip"}, "mmproj-m", "projector"),
        ({"general__type": "mmproj", "general__architecture": "clip"}, "m", "projector"),
        ({"general__type": "adapter", "adapter__type": "lora"}, "m", "adapter"),
        ({"general__type": "imatrix"}, "m", "imatrix"),
        ({"general__architecture": "controlvector"}, "m", "control-vector"),
        ({"split__no": 0, "split__count": 3}, "m-00001-of-00003", "model"),
        ({"split__no": 2, "split__count": 3}, "m-00003-of-00003", "part"),
        ({}, "mtp-m-Q4_K_M", "draft"),
    ],
)
def test_files_are_told_apart(metadata: dict[str, Any], stem: str, kind: str):
    assert gguf_facts.kind(header(**metadata), stem) == kind


def test_a_file_without_tensors_is_a_vocabulary():
    assert gguf_facts.kind(read_header(gguf_bytes({"general.architecture": "llama"}))) == "vocabulary"


@pytest.mark.parametrize(
    ("stem", "base", "tag"),
    [
        ("Qwen3-4B-Instruct-2507-Q4_K_M", "Qwen3-4B-Instruct-2507", "Q4_K_M"),
        ("Qwen3-4B-UD-Q4_K_XL", "Qwen3-4B", "UD-Q4_K_XL"),
        ("gemma.q8_0", "gemma", "Q8_0"),
        ("gpt-oss-20b-MXFP4", "gpt-oss-20b", "MXFP4"),
        ("m-IQ2_XXS", "m", "IQ2_XXS"),
        ("m-fp16", "m", "F16"),
        ("m-TQ1_0", "m", "TQ1_0"),
        ("Llama-3.2-1B-Instruct", "Llama-3.2-1B-Instruct", ""),
        ("Q4_K_M", "Q4_K_M", ""),
    ],
)
def test_the_quant_tag_of_a_file_name_is_split_off(stem: str, base: str, tag: str):
    assert split_quant(stem) == (base, tag)


def test_the_name_of_a_quant_is_the_files_tag_then_its_type_then_its_commonest_tensor_type():
    typed = header(general__file_type=15)
    assert gguf_facts.quant(typed, "m-UD-Q4_K_XL-00001-of-00002") == "UD-Q4_K_XL"
    assert gguf_facts.quant(typed, "m") == "Q4_K_M"
    assert gguf_facts.quant(header(general__file_type=1024), "m") == "F32"
    assert gguf_facts.quant(header(), "m") == "F32"


def test_capabilities_follow_template_tokens_and_pooling():
    template = "{% if tools %}{{ tools }}{% endif %}{% if enable_thinking %}<think>{% endif %}"
    assert gguf_facts.capabilities(header(tokenizer__chat_template="{{ messages }}")) == ("completion",)
    assert gguf_facts.capabilities(header(tokenizer__chat_template=template)) == (
        "tools",
        "thinking",
        "completion",
    )
    assert gguf_facts.capabilities(header(tokenizer__ggml__fim_pre_token_id=5)) == ("completion", "insert")
    for text in ("<|fim_prefix|>", "<｜fim▁begin｜>"):  # as llama.cpp knows them where no key says it
        raw = len(text.encode()).to_bytes(8, "little") + text.encode()
        assert gguf_facts.capabilities(header(), b"..." + raw) == ("completion", "insert")
        assert gguf_facts.capabilities(header(), b"..." + text.encode()) == (
            "completion",
        )  # no token of its own
    assert gguf_facts.capabilities(header(llama__pooling_type=1)) == ("embedding",)
    assert gguf_facts.capabilities(header(general__architecture="nomic-bert")) == ("embedding",)


def test_a_reranker_ranks_and_gives_no_vectors():
    assert gguf_facts.is_reranker(header(llama__pooling_type=4))
    assert not gguf_facts.is_reranker(header(llama__pooling_type=1))
    assert gguf_facts.capabilities(header(llama__pooling_type=4)) == ("rerank",)


@pytest.mark.parametrize(
    ("metadata", "adds"),
    [
        ({}, ("vision",)),
        ({"clip__has_vision_encoder": True}, ("vision",)),
        ({"clip__has_audio_encoder": True}, ("audio",)),
        ({"clip__has_audio_encoder": True, "clip__has_vision_encoder": True}, ("vision", "audio")),
    ],
)
def test_a_projector_says_what_it_adds(metadata: dict[str, Any], adds: tuple[str, ...]):
    assert gguf_facts.projector_capabilities(header(general__architecture="clip", **metadata)) == adds


def test_values_of_another_type_than_expected_count_as_absent():
    odd = header(llama__context_length="long", llama__block_count=1.5)
    assert (gguf_facts.context_length(odd), gguf_facts.block_count(odd)) == (0, 0)
    assert gguf_facts.parameters(odd) == 8
