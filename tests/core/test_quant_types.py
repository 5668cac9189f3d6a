"""The table of llama-quantize's usage, and what a run of it says."""

import pytest

from llamamgr.core.errors import UsageError
from llamamgr.core.quant_types import failure_of, find_type, latest_count, parse_sizes, parse_types

USAGE = """usage: llama-quantize [--help] model-f32.gguf [model-quant.gguf] type [nthreads]
  --max-buffer-size MiB   max amount of tensor rows kept in memory (default: 8192)
-----------------------------------------------------------------------------
 allowed quantization types
-----------------------------------------------------------------------------

  40  or  Q1_0    :  1.125 bpw quantization
  28  or  IQ2_S   :  2.5  bpw quantization
   2  or  Q4_0    :  4.34G, +0.4685 ppl @ Llama-3-8B
  38  or  MXFP4_MOE :  MXFP4 MoE
  15  or  Q4_K    : alias for Q4_K_M
  15  or  Q4_K_M  :  4.58G, +0.1754 ppl @ Llama-3-8B
   1  or  F16     : 14.00G, +0.0020 ppl @ Mistral-7B
   0  or  F32     : 26.00G              @ 7B
          COPY    : only copy tensors, no quantizing
"""
TYPES = parse_types(USAGE)


def test_every_row_is_a_type_and_nothing_else_is():
    names = ["Q1_0", "IQ2_S", "Q4_0", "MXFP4_MOE", "Q4_K", "Q4_K_M", "F16", "F32", "COPY"]
    assert [kind.name for kind in TYPES] == names
    assert parse_types("usage: something else\n  15  or  Q4_K : x\n") == ()


def test_bits_per_weight_are_those_that_are_said_known_or_follow_from_the_size_of_a_known_model():
    bits = {kind.name: kind.bits for kind in TYPES}
    assert (bits["Q1_0"], bits["IQ2_S"], bits["F16"], bits["F32"]) == (1.125, 2.5, 16, 32)
    assert bits["Q4_0"] == pytest.approx(4.64) and bits["Q4_K_M"] == pytest.approx(4.9)
    assert bits["MXFP4_MOE"] == bits["COPY"] == 0


@pytest.mark.parametrize("text", ["Q4_K_M", "q4_k_m", " q4_K ", "15"])
def test_a_type_is_found_by_name_alias_or_number(text):
    assert find_type(TYPES, text).name == "Q4_K_M"


def test_a_type_without_a_number_is_not_found_by_minus_one():
    with pytest.raises(UsageError):
        find_type(TYPES, "-1")


def test_an_unknown_type_names_those_that_were_meant():
    with pytest.raises(UsageError) as caught:
        find_type(TYPES, "Q4_K_X")
    assert "Q4_K_M" in caught.value.hint


def test_the_last_count_of_a_text_counts():
    text = "[   1/  12] output.weight - [ 2 ], type = f32\n[  10/  12] blk.0.ffn_gate.weight   - [ "
    assert latest_count(text) == (10, 12, "blk.0.ffn_gate.weight")
    assert latest_count("[  10/") is None


def test_sizes_and_warnings_are_those_of_the_summary():
    sizes = parse_sizes(
        "x: model size  =     1.95 MiB (32.00 BPW)\nx: quant size  =     0.32 MiB (5.17 BPW)\n"
        "x: WARNING: 3 of 12 tensor(s) required fallback quantization\n"
    )
    assert (sizes.before, sizes.after, sizes.bits) == (round(1.95 * 1024**2), round(0.32 * 1024**2), 5.17)
    assert sizes.warnings == ("3 of 12 tensor(s) required fallback quantization",)


@pytest.mark.parametrize(
    ("said", "reason", "hint"),
    [
        (
            "[ 1/12] x, llama_model_quantize: failed to quantize: requantizing from type q8_0 is disabled\n"
            "llama_quantize: failed to quantize model from 'q8.gguf'\n",
            "requantizing from type q8_0 is disabled",
            "--allow-requantize",
        ),
        (
            "a: failed to quantize: this quantization requires an imatrix!\n",
            "requires an imatrix",
            "--imatrix",
        ),
        (
            "gguf_init_from_reader: failed to read key-value pairs\n"
            "a: failed to quantize: llama_model_loader: failed to load model from cut.gguf\n",
            "failed to load model from cut.gguf (failed to read key-value pairs)",
            "whole GGUF",
        ),
        (
            "load_imatrix: failed to load imatrix from 'nofile'\n",
            "failed to load imatrix",
            "llama-imatrix wrote",
        ),
        ("llama_quantize: error: input and output files are the same: 'x'\n", "are the same", ""),
        (USAGE, "did not take its options", ""),
        (
            f"\nparse_ggml_type: invalid ggml_type 'zzz'\n\n{USAGE}",
            "did not take its options: invalid ggml_type 'zzz'",
            "",
        ),
        (
            "llama_model_quantize: failed to quantize: tensor 'x' data is not within the file bounds, model is corrupted\n",
            "not within the file bounds",
            "whole GGUF",
        ),
        ("terminate called\n\nAborted\n\n", "Aborted", ""),
        ("", "said nothing", ""),
    ],
)
def test_a_failure_is_told_in_the_tools_own_words_with_what_helps(said, reason, hint):
    told, help_ = failure_of(said)
    assert reason in told and hint in help_
