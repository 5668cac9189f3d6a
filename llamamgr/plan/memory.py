"""How much memory a child will take, from its files' headers alone, part by part.

The prompt cache (``--cache-ram``, 8 GiB by default in the engine) is set by us and therefore known; the KV cache follows the
engine's own rules (``core.kv_cache``); compute buffers are guessed from the micro batch and the vocabulary, with a margin.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from llamamgr.core.cards import ModelCard
from llamamgr.core.gguf import Header, LongArray
from llamamgr.core.gguf_facts import embedding_length
from llamamgr.core.kv_cache import kv_bytes

MIB = 1024 * 1024
DEFAULT_CONTEXT = 4096  # tokens per slot when nobody says more, as Ollama has it without a large GPU
MICRO_BATCH = 512  # the engine's default
_PROMPT_CACHE_LIMIT = 512 * MIB
_COMPUTE_FLOOR = 64 * MIB
_FLOAT = 4
_WIDTHS = 6  # rows as wide as the residual stream that are alive at once


class Parts(msgspec.Struct, frozen=True):
    """Bytes by what they are for; ``margin`` is for what no header tells."""

    weights: int
    cache: int
    compute: int
    prompt_cache: int
    projector: int = 0
    draft: int = 0
    margin: int = 0

    @property
    def total(self) -> int:
        return sum(msgspec.structs.astuple(self))


class Files(msgspec.Struct, frozen=True):
    """What is known of a model's files and of how they are loaded, beyond its card.

    Without ``header`` the card's figure per token has to do. ``beside`` are bytes of projector and adapters, ``draft_size`` of the
    draft model. ``full_windows`` is ``--swa-full``.
    """

    header: Header | None = None
    beside: int = 0
    draft: Header | None = None
    draft_size: int = 0
    key_type: str = "f16"
    value_type: str = "f16"
    batch: int = MICRO_BATCH
    full_windows: bool = False


CARD_ONLY = Files()


class Shape(msgspec.Struct, frozen=True):
    """What a child will be: tokens per slot, slots, MiB of prompt cache, and the bytes it needs in all (``parts`` by estimate)."""

    context: int
    parallel: int
    prompt_cache_mib: int
    need: int
    parts: Parts | None = None


def context_of(model: ModelCard, asked: int, usual: int = 0) -> int:
    """Tokens per slot: those ``asked`` for, else the ``usual`` ones (of both 0 = none said); never beyond the trained context."""
    wanted = asked or usual or DEFAULT_CONTEXT
    return min(wanted, model.context) if model.context else wanted


def shape_of(model: ModelCard, context: int, parallel: int, files: Files = CARD_ONLY) -> Shape:
    """The child for ``context`` tokens per slot (0 = default) and ``parallel`` slots; context never exceeds the trained one."""
    tokens = context_of(model, context)
    cache = _cache(model, tokens, parallel, files)
    prompt_cache = -(-min(_PROMPT_CACHE_LIMIT, cache) // MIB)
    parts = Parts(
        weights=model.size,
        cache=cache,
        compute=_compute(model, tokens, files),
        prompt_cache=prompt_cache * MIB,
        projector=files.beside,
        draft=_draft(files, tokens, parallel),
        margin=model.size // 20,
    )
    return Shape(tokens, parallel, prompt_cache, parts.total, parts)


def best_shape(
    model: ModelCard,
    context: int,
    parallel: int,
    budget: int,
    need: Callable[[Shape], int] | None = None,
    files: Files = CARD_ONLY,
) -> Shape:
    """The shape with the most slots (halving from ``parallel``) that fits ``budget``; one slot when none does.

    ``need`` corrects the estimate of a shape by what is known better.
    """
    slots = max(1, parallel)
    while True:
        shape = shape_of(model, context, slots, files)
        if need is not None:
            shape = msgspec.structs.replace(shape, need=need(shape))
        if shape.need <= budget or slots == 1:
            return shape
        slots //= 2


def _cache(model: ModelCard, tokens: int, parallel: int, files: Files) -> int:
    if files.header is None:
        return model.kv_bytes_per_token * tokens * parallel
    return kv_bytes(
        files.header,
        tokens,
        key_type=files.key_type,
        value_type=files.value_type,
        parallel=parallel,
        batch=tokens if files.full_windows else files.batch,
    )


def _draft(files: Files, tokens: int, parallel: int) -> int:
    cache = kv_bytes(files.draft, tokens, parallel=parallel) if files.draft is not None else 0
    return files.draft_size + cache


def _compute(model: ModelCard, tokens: int, files: Files) -> int:
    """A micro batch of logits (not of models that only embed), of rows, and of the mask over the context."""
    if files.header is None:
        return _COMPUTE_FLOOR
    vocabulary = 0 if "embedding" in model.capabilities else _vocabulary(files.header)
    rows = files.batch * _FLOAT * (vocabulary + _WIDTHS * embedding_length(files.header))
    return max(_COMPUTE_FLOOR, rows + files.batch * tokens * 2)


def _vocabulary(header: Header) -> int:
    tokens = header.metadata.get("tokenizer.ggml.tokens")
    if isinstance(tokens, LongArray):
        return tokens.count
    return len(tokens) if isinstance(tokens, tuple) else 0
