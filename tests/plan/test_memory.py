"""What a child is expected to take."""

import msgspec

from llamamgr.core.cards import ModelCard
from llamamgr.core.gguf import Header, read_header
from llamamgr.core.kv_cache import kv_bytes
from llamamgr.models.writer import gguf_bytes
from llamamgr.plan.memory import DEFAULT_CONTEXT, MIB, Files, best_shape, context_of, shape_of

CARD = ModelCard("m:latest", "d", ("/m.gguf",), 1000 * MIB, 0.0, context=32768, kv_bytes_per_token=100_000)


def test_the_context_is_the_one_asked_for_but_never_beyond_the_trained_one():
    assert shape_of(CARD, 0, 1).context == DEFAULT_CONTEXT
    assert shape_of(CARD, 8192, 1).context == 8192
    assert shape_of(CARD, 99_999, 1).context == 32768


def test_the_general_context_holds_where_nobody_asks_for_one_and_is_bounded_all_the_same():
    assert context_of(CARD, 0) == DEFAULT_CONTEXT
    assert context_of(CARD, 0, 16384) == 16384
    assert context_of(CARD, 1024, 16384) == 1024
    assert context_of(CARD, 0, 99_999) == 32768


def test_weights_cache_and_slots_all_count():
    one, four = shape_of(CARD, 4096, 1), shape_of(CARD, 4096, 4)
    assert four.need - one.need >= 3 * 4096 * 100_000
    assert one.need > CARD.size + 4096 * 100_000


def test_slots_are_given_up_before_a_model_does_not_fit():
    roomy = shape_of(CARD, 4096, 4).need
    assert best_shape(CARD, 4096, 4, roomy).parallel == 4
    assert best_shape(CARD, 4096, 4, roomy - 1).parallel == 2
    assert best_shape(CARD, 4096, 4, 0).parallel == 1


def header(**more: object) -> Header:
    known = {
        "general.architecture": "llama",
        "llama.block_count": 4,
        "llama.embedding_length": 1024,
        "llama.attention.head_count": 8,
        "tokenizer.ggml.tokens": ["x"] * 100_000,
    }
    return read_header(gguf_bytes(known | more))


def test_with_a_header_the_cache_follows_the_engines_own_rules():
    plain = shape_of(CARD, 4096, 2, Files(header())).parts
    assert plain.cache == kv_bytes(header(), 4096, parallel=2)
    small = shape_of(CARD, 4096, 2, Files(header(), key_type="q8_0", value_type="q8_0")).parts
    assert small.cache == plain.cache * 34 // 64


def test_a_sliding_window_costs_no_more_than_its_length_unless_it_is_kept_full():
    windows = {"llama.attention.sliding_window": 256, "llama.attention.sliding_window_pattern": [True] * 4}
    sliding = header(**windows)
    windowed = shape_of(CARD, 32768, 1, Files(sliding)).parts.cache
    assert windowed < shape_of(CARD, 32768, 1, Files(header())).parts.cache // 10
    full = shape_of(CARD, 32768, 1, Files(sliding, full_windows=True)).parts.cache
    assert full == shape_of(CARD, 32768, 1, Files(header())).parts.cache


def test_projector_adapters_and_draft_count():
    bare = shape_of(CARD, 4096, 1, Files(header()))
    more = shape_of(CARD, 4096, 1, Files(header(), beside=300 * MIB, draft=header(), draft_size=200 * MIB))
    assert more.need - bare.need == 500 * MIB + kv_bytes(header(), 4096)


def test_a_batch_of_logits_counts_and_a_model_that_only_embeds_has_none():
    assert shape_of(CARD, 512, 1, Files(header())).parts.compute > 512 * 100_000 * 4
    embeds = msgspec.structs.replace(CARD, capabilities=("embedding",))
    assert shape_of(embeds, 512, 1, Files(header())).parts.compute == 64 * MIB


def test_the_parts_are_the_whole():
    shape = shape_of(CARD, 4096, 3, Files(header(), beside=MIB))
    assert shape.need == shape.parts.total
