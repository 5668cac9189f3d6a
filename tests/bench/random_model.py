"""A model of random weights, big enough that reading a prompt takes this machine seconds; it says nothing of sense.

Its vocabulary and chat template are the self-test model's: text becomes a token per byte.
"""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

from llamamgr.models import selftest

WIDTH, LAYERS, FEED_FORWARD, HEADS, KV_HEADS = 1024, 8, 2816, 16, 4
CONTEXT = 16_384
_HEAD = WIDTH // HEADS * KV_HEADS
_SHAPES = {
    "attn_q": (WIDTH, WIDTH),
    "attn_k": (_HEAD, WIDTH),
    "attn_v": (_HEAD, WIDTH),
    "attn_output": (WIDTH, WIDTH),
    "ffn_gate": (FEED_FORWARD, WIDTH),
    "ffn_up": (FEED_FORWARD, WIDTH),
    "ffn_down": (WIDTH, FEED_FORWARD),
}
PARAMETERS = LAYERS * sum(rows * columns for rows, columns in _SHAPES.values())


def write(path: Path) -> None:
    """Write it to ``path``: about 180 MB in half precision, always the same bytes."""
    vocabulary = selftest._vocabulary()
    metadata = selftest._metadata(vocabulary)
    writer = gguf.GGUFWriter(str(path), "llama")
    _write_metadata(writer, metadata)
    random = np.random.default_rng(7)

    def matrix(name: str, rows: int, columns: int) -> None:
        values = random.standard_normal((rows, columns), dtype=np.float32) * np.float32(0.02)
        writer.add_tensor(name, values.astype(np.float16))

    def ones(name: str) -> None:
        writer.add_tensor(name, np.ones(WIDTH, dtype=np.float32))

    matrix("token_embd.weight", len(vocabulary), WIDTH)
    matrix("output.weight", len(vocabulary), WIDTH)
    ones("output_norm.weight")
    for layer in range(LAYERS):
        ones(f"blk.{layer}.attn_norm.weight")
        ones(f"blk.{layer}.ffn_norm.weight")
        for name, (rows, columns) in _SHAPES.items():
            matrix(f"blk.{layer}.{name}.weight", rows, columns)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_metadata(writer: gguf.GGUFWriter, metadata: dict[str, object]) -> None:
    own = {
        "llama.context_length": CONTEXT,
        "llama.embedding_length": WIDTH,
        "llama.block_count": LAYERS,
        "llama.feed_forward_length": FEED_FORWARD,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": KV_HEADS,
        "llama.rope.dimension_count": WIDTH // HEADS,
        "general.name": "random",
        "general.file_type": int(gguf.LlamaFileType.MOSTLY_F16),
    }
    for key, value in {**metadata, **own}.items():
        if key == "general.architecture":
            continue  # the writer's own
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        else:
            writer.add_array(key, value)
