"""Bytes that a model's cache takes, from its header: an estimate for planning before llama.cpp itself is asked.

Sources: src/llama-kv-cache.cpp, llama-kv-cache-iswa.cpp, llama-hparams.cpp and src/models/*.cpp of llama.cpp b11434.
Where a file does not say enough (linear attention, indexer caches) the estimate is the larger one.
"""

from __future__ import annotations

import msgspec

from llamamgr.core.gguf import Header
from llamamgr.core.gguf_facts import ENCODERS, architecture, block_count, embedding_length
from llamamgr.core.quants import CACHE_TYPES

_CELLS_MULTIPLE = 256
_STATE_BYTES = 4  # recurrent state is f32

_RECURRENT = frozenset(("mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"))
_WITHOUT_CACHE = ENCODERS | {"dream", "llada", "llada-moe", "rnd1"}
_CHUNK = 8192  # llama4's files need not name their window

# Architectures whose pattern of sliding layers is in the code: period, and whether the dense layer comes first.
_SLIDING_PERIODS = {
    "afmoe": (4, False),
    "cohere2": (4, False),
    "cohere2moe": (4, True),
    "exaone-moe": (4, False),
    "exaone4": (4, False),
    "gemma2": (2, False),
    "gemma3": (6, False),
    "gemma3n": (5, False),
    "gpt-oss": (2, False),
    "laguna": (4, True),
    "llama4": (4, False),
    "mellum": (4, False),
    "muse-glimmer": (4, False),
    "olmo2": (4, False),
    "plamo3": (8, False),
    "smallthinker": (4, True),
}


class Layer(msgspec.Struct, frozen=True):
    """One layer's cache: elements per token of K and V, whether its window slides, elements of state per sequence."""

    key: int
    value: int
    sliding: bool
    state: int


def kv_bytes(
    header: Header,
    context: int,
    *,
    key_type: str = "f16",
    value_type: str = "f16",
    parallel: int = 1,
    unified: bool = False,
    batch: int = 512,
) -> int:
    """Bytes of the whole cache for ``context`` tokens in each of ``parallel`` slots.

    ``key_type`` and ``value_type`` are spelled as for ``--cache-type-k``; ``batch`` is ``-ub``, by which sliding windows
    are longer. ``unified`` is ``-kvu``: one stream of ``context × parallel`` cells for all slots.
    """
    window = _window(header, architecture(header))
    streams, length = (1, context * parallel) if unified else (parallel, context)
    cells = streams * _padded(length)
    sliding_cells = streams * _padded(min(length, window * (parallel if unified else 1) + batch))
    total = 0
    for layer in layers(header):
        here = sliding_cells if layer.sliding else cells
        total += here * (_bytes(key_type, layer.key) + _bytes(value_type, layer.value))
        total += layer.state * _STATE_BYTES * parallel
    return total


def kv_bytes_per_token(header: Header) -> int:
    """Bytes that one more token of context costs in f16, sliding layers left out: they stop growing at their window."""
    growing = [layer for layer in layers(header) if not layer.sliding]
    return sum(_bytes("f16", layer.key) + _bytes("f16", layer.value) for layer in growing)


def layers(header: Header) -> tuple[Layer, ...]:
    """What every layer of the trunk keeps; none for models without a cache (encoders, diffusion)."""
    arch = architecture(header)
    if arch in _WITHOUT_CACHE or header.metadata.get(f"{arch}.attention.causal") is False:
        return ()
    trunk = min(block_count(header) - header.number(f"{arch}.nextn_predict_layers"), 4096)
    owning = trunk - header.number(f"{arch}.attention.shared_kv_layers")
    return tuple(_layer(header, arch, index) for index in range(max(owning, 0)))


def _layer(header: Header, arch: str, index: int) -> Layer:
    heads = _per_layer(header, f"{arch}.attention.head_count", index)
    kv_heads = _per_layer(header, f"{arch}.attention.head_count_kv", index, heads)
    if _is_recurrent(header, arch, index, kv_heads):
        return Layer(0, 0, False, _state(header, arch))
    sliding = _is_sliding(header, arch, index)
    suffix = "_swa" if sliding and f"{arch}.attention.key_length_swa" in header.metadata else ""
    default = embedding_length(header) // heads if heads else 0
    key = header.number(f"{arch}.attention.key_length{suffix}", default) * kv_heads
    value = header.number(f"{arch}.attention.value_length{suffix}", default) * kv_heads
    if header.number(f"{arch}.attention.key_length_mla"):
        value = 0  # latent attention keeps one compressed row, from which V is taken too
    extra = (
        _state(header, arch) if arch == "falcon-h1" else 0
    )  # attention and state side by side in each layer
    return Layer(key, value, sliding, extra)


def _is_recurrent(header: Header, arch: str, index: int, kv_heads: int) -> bool:
    interval = header.number(f"{arch}.full_attention_interval")
    if interval > 1:
        return (index + 1) % interval != 0
    return arch in _RECURRENT or kv_heads == 0


def _window(header: Header, arch: str) -> int:
    return header.number(f"{arch}.attention.sliding_window", _CHUNK if arch == "llama4" else 0)


def _is_sliding(header: Header, arch: str, index: int) -> bool:
    if not _window(header, arch):
        return False
    pattern = header.metadata.get(f"{arch}.attention.sliding_window_pattern")
    if isinstance(pattern, tuple):
        return index < len(pattern) and bool(pattern[index])
    period, dense_first = _SLIDING_PERIODS.get(arch, (1, False))
    if isinstance(pattern, int) and pattern > 0:
        period = pattern
    return index % period != 0 if dense_first else index % period < period - 1


def _state(header: Header, arch: str) -> int:
    """Elements of one recurrent layer's state per sequence; 0 in a layer that keeps none (plain feed-forward)."""
    width = embedding_length(header)
    head = header.number(f"{arch}.wkv.head_size")
    if head:
        return header.number(f"{arch}.token_shift_count", 2) * width + width * head
    shortconv = header.number(f"{arch}.shortconv.l_cache")
    if shortconv:
        return width * (shortconv - 1)
    kda = header.number(f"{arch}.kda.head_dim")
    heads = header.number(f"{arch}.attention.head_count")
    conv, inner = header.number(f"{arch}.ssm.conv_kernel"), header.number(f"{arch}.ssm.inner_size")
    if kda:
        return 3 * max(conv - 1, 3) * heads * kda + kda * kda * heads
    size, groups = header.number(f"{arch}.ssm.state_size"), header.number(f"{arch}.ssm.group_count")
    return max(conv - 1, 0) * (inner + 2 * groups * size) + size * inner


def _per_layer(header: Header, key: str, index: int, default: int = 0) -> int:
    value = header.metadata.get(key, default)
    if isinstance(value, tuple):
        value = value[index] if index < len(value) else default
    return value if isinstance(value, int) and 0 <= value < 1 << 32 else 0


def _bytes(cache_type: str, elements: int) -> int:
    kind = CACHE_TYPES[cache_type]
    return -(-elements // kind.block) * kind.size


def _padded(tokens: int) -> int:
    return -(-max(tokens, 0) // _CELLS_MULTIPLE) * _CELLS_MULTIPLE
