"""How much memory a child will take, from the model's card alone.

weights + KV cache + prompt cache + compute buffers. The KV cache is ``kv_bytes_per_token`` (f16, all layers) for every token of
every slot; the prompt cache (``--cache-ram``, 8 GiB by default in the engine) is set by us and therefore known.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from llamamgr.core.cards import ModelCard

MIB = 1024 * 1024
DEFAULT_CONTEXT = 4096  # tokens per slot when nobody says more, as Ollama has it without a large GPU
_PROMPT_CACHE_LIMIT = 512 * MIB
_COMPUTE_FLOOR = 64 * MIB


class Shape(msgspec.Struct, frozen=True):
    """What a child will be: tokens per slot, slots, MiB of prompt cache, and the bytes it needs in all."""

    context: int
    parallel: int
    prompt_cache_mib: int
    need: int


def shape_of(model: ModelCard, context: int, parallel: int) -> Shape:
    """The child for ``context`` tokens per slot (0 = default) and ``parallel`` slots; context never exceeds the trained one."""
    wanted = context or DEFAULT_CONTEXT
    tokens = min(wanted, model.context) if model.context else wanted
    kv = model.kv_bytes_per_token * tokens * parallel
    cache = -(-min(_PROMPT_CACHE_LIMIT, kv) // MIB)
    need = model.size + kv + cache * MIB + _COMPUTE_FLOOR + model.size // 20
    return Shape(tokens, parallel, cache, need)


def best_shape(
    model: ModelCard, context: int, parallel: int, budget: int, need: Callable[[Shape], int] | None = None
) -> Shape:
    """The shape with the most slots (halving from ``parallel``) that fits ``budget``; one slot when none does.

    ``need`` corrects the estimate of a shape by what is known better.
    """
    slots = max(1, parallel)
    while True:
        shape = shape_of(model, context, slots)
        if need is not None:
            shape = msgspec.structs.replace(shape, need=need(shape))
        if shape.need <= budget or slots == 1:
            return shape
        slots //= 2
