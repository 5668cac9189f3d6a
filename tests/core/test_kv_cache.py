"""Cache sizes, against figures worked out by hand from llama.cpp's rules."""

from __future__ import annotations

from typing import Any

import pytest

from llamamgr.core.gguf import Header, read_header
from llamamgr.core.kv_cache import kv_bytes, kv_bytes_per_token
from llamamgr.models.writer import gguf_bytes


def header(arch: str, layers: int, **metadata: Any) -> Header:
    keys = {f"{arch}.{key.replace('__', '.')}": value for key, value in metadata.items()}
    return read_header(gguf_bytes({"general.architecture": arch, f"{arch}.block_count": layers} | keys))


LLAMA_8B = header("llama", 32, embedding_length=4096, attention__head_count=32, attention__head_count_kv=8)


def test_grouped_heads_share_their_cache():
    assert kv_bytes_per_token(LLAMA_8B) == 32 * 2 * 8 * 128 * 2
    assert kv_bytes(LLAMA_8B, 8192) == 1024**3


def test_slots_multiply_and_cells_come_in_blocks_of_256():
    assert kv_bytes(LLAMA_8B, 1, parallel=3) == 3 * kv_bytes(LLAMA_8B, 256)
    assert kv_bytes(LLAMA_8B, 100, parallel=4, unified=True) == kv_bytes(LLAMA_8B, 512)


def test_quantised_caches_are_smaller_by_their_block_sizes():
    full = kv_bytes(LLAMA_8B, 4096)
    assert kv_bytes(LLAMA_8B, 4096, key_type="q8_0", value_type="q8_0") == full * 34 // 64
    assert kv_bytes(LLAMA_8B, 4096, key_type="q4_0") == full // 2 * 18 // 64 + full // 2


def test_heads_may_differ_per_layer_and_layers_may_have_none():
    mixed = header(
        "llama", 3, embedding_length=512, attention__head_count=8, attention__head_count_kv=[8, 0, 2]
    )
    assert kv_bytes_per_token(mixed) == (8 + 2) * 64 * 2 * 2


def test_latent_attention_keeps_one_row_and_no_values():
    deepseek = header(
        "deepseek2",
        10,
        embedding_length=7168,
        attention__head_count=128,
        attention__head_count_kv=1,
        attention__key_length=576,
        attention__value_length=512,
        attention__key_length_mla=192,
        attention__value_length_mla=128,
    )
    assert kv_bytes_per_token(deepseek) == 10 * 576 * 2


@pytest.mark.parametrize("pattern", [None, [True, False] * 2])
def test_sliding_layers_stop_growing_at_their_window(pattern: list[bool] | None):
    told = {} if pattern is None else {"attention__sliding_window_pattern": pattern}
    gemma = header(
        "gemma2",
        4,
        embedding_length=512,
        attention__head_count=4,
        attention__head_count_kv=2,
        attention__sliding_window=1024,
        **told,
    )
    row = 2 * 128 * 2 * 2
    assert kv_bytes_per_token(gemma) == 2 * row
    assert kv_bytes(gemma, 32_768, batch=512) == 2 * row * 32_768 + 2 * row * 1536
    assert kv_bytes(gemma, 512) == 4 * row * 512


def test_recurrent_state_does_not_grow_with_the_context():
    mamba = header(
        "mamba", 2, embedding_length=768, ssm__conv_kernel=4, ssm__inner_size=1536, ssm__state_size=16
    )
    state = 2 * (3 * 1536 + 16 * 1536) * 4
    assert kv_bytes_per_token(mamba) == 0
    assert kv_bytes(mamba, 4096) == kv_bytes(mamba, 65_536) == state
    assert kv_bytes(mamba, 4096, parallel=4) == 4 * state


def test_hybrids_keep_both_kinds():
    hybrid = header(
        "qwen3next",
        4,
        embedding_length=512,
        attention__head_count=8,
        attention__head_count_kv=2,
        full_attention_interval=4,
        ssm__conv_kernel=4,
        ssm__inner_size=64,
        ssm__state_size=8,
        ssm__group_count=2,
    )
    assert kv_bytes_per_token(hybrid) == 2 * 64 * 2 * 2
    assert kv_bytes(hybrid, 256) == 256 * 2 * 64 * 2 * 2 + 3 * (3 * (64 + 32) + 512) * 4


def test_encoders_have_no_cache_and_shared_or_extra_layers_none_of_their_own():
    plain = {"embedding_length": 512, "attention__head_count": 8}
    assert kv_bytes(header("bert", 4, **plain), 512) == 0
    one = kv_bytes_per_token(header("llama", 1, **plain))
    assert kv_bytes_per_token(header("llama", 5, nextn_predict_layers=1, **plain)) == 4 * one
    assert kv_bytes_per_token(header("llama", 5, attention__shared_kv_layers=3, **plain)) == 2 * one


def test_absurd_counts_are_bounded():
    absurd = header("llama", 4_000_000_000, embedding_length=64, attention__head_count=1)
    assert kv_bytes_per_token(absurd) == 4096 * 64 * 2 * 2
