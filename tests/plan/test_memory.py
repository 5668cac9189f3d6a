"""What a child is expected to take."""

from llamamgr.core.cards import ModelCard
from llamamgr.plan.memory import DEFAULT_CONTEXT, MIB, best_shape, shape_of

CARD = ModelCard("m:latest", "d", ("/m.gguf",), 1000 * MIB, 0.0, context=32768, kv_bytes_per_token=100_000)


def test_the_context_is_the_one_asked_for_but_never_beyond_the_trained_one():
    assert shape_of(CARD, 0, 1).context == DEFAULT_CONTEXT
    assert shape_of(CARD, 8192, 1).context == 8192
    assert shape_of(CARD, 99_999, 1).context == 32768


def test_weights_cache_and_slots_all_count():
    one, four = shape_of(CARD, 4096, 1), shape_of(CARD, 4096, 4)
    assert four.need - one.need >= 3 * 4096 * 100_000
    assert one.need > CARD.size + 4096 * 100_000


def test_slots_are_given_up_before_a_model_does_not_fit():
    roomy = shape_of(CARD, 4096, 4).need
    assert best_shape(CARD, 4096, 4, roomy).parallel == 4
    assert best_shape(CARD, 4096, 4, roomy - 1).parallel == 2
    assert best_shape(CARD, 4096, 4, 0).parallel == 1
