"""A tiny Hugging Face llama, written by hand: it converts, quantizes with real K-quants, and says one known sentence.

As in ``llamamgr.models.selftest`` attention and feed-forward are zero, so the last token alone decides the next one. The weights
are raw F16 safetensors; the tokenizer is a SentencePiece protobuf (sentencepiece_model.proto: field numbers below).
"""

from __future__ import annotations

import itertools
import json
import struct
from pathlib import Path

ANSWER = "Converted llamas hum softly."
WIDTH = 256  # a multiple of 256, or K-quants fall back to others

_PIECES = ("Con", "verted", "▁llamas", "▁hum", "▁softly", ".")
_CONTROLS = ("<s>", "</s>", "<|user|>", "<|assistant|>")
_CHAIN = ("<|assistant|>", *_PIECES, "</s>")
_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6
_HEADS, _KV_HEADS = 4, 1
_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def write(folder: Path) -> Path:
    """The model as a folder that ``convert_hf_to_gguf.py`` takes."""
    folder.mkdir(parents=True)
    vocabulary = _vocabulary()
    (folder / "config.json").write_text(json.dumps(_config(len(vocabulary))))
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {"tokenizer_class": "LlamaTokenizer", "chat_template": _TEMPLATE, "add_prefix_space": False}
        )
    )
    (folder / "tokenizer.model").write_bytes(_sentencepiece(vocabulary))
    (folder / "model.safetensors").write_bytes(_safetensors(_tensors(list(vocabulary))))
    return folder


def write_lora(folder: Path, base: str) -> Path:
    """An adapter of rank 1 for the model's query projection."""
    folder.mkdir(parents=True)
    config = {
        "peft_type": "LORA",
        "r": 1,
        "lora_alpha": 1,
        "base_model_name_or_path": base,
        "target_modules": ["q_proj"],
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    stem = "base_model.model.model.layers.0.self_attn.q_proj"
    tensors = {
        f"{stem}.lora_A.weight": ((1, WIDTH), bytes(2 * WIDTH)),
        f"{stem}.lora_B.weight": ((WIDTH, 1), bytes(2 * WIDTH)),
    }
    (folder / "adapter_model.safetensors").write_bytes(_safetensors(tensors))
    return folder


def _vocabulary() -> dict[str, int]:
    pieces = {"<unk>": _UNKNOWN, **dict.fromkeys(_CONTROLS, _CONTROL)}
    pieces |= {f"<0x{value:02X}>": _BYTE for value in range(256)}
    return pieces | dict.fromkeys(_PIECES, _NORMAL)


def _config(vocabulary: int) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": WIDTH,
        "intermediate_size": WIDTH,
        "num_hidden_layers": 1,
        "num_attention_heads": _HEADS,
        "num_key_value_heads": _KV_HEADS,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "max_position_embeddings": 2048,
        "vocab_size": vocabulary,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
    }


def _tensors(tokens: list[str]) -> dict[str, tuple[tuple[int, ...], bytes]]:
    """Name → shape and little-endian F16 data. Each token of the chain has a dimension of its own, all others share 0."""
    ids = {token: number for number, token in enumerate(tokens)}
    dimension = {token: number for number, token in enumerate(_CHAIN[:-1], start=1)}
    embedding = b"".join(_row({dimension.get(token, 0): 1.0}) for token in tokens)
    rows: list[dict[int, float]] = [{} for _ in tokens]
    rows[ids["</s>"]][0] = 16.0
    for token, following in itertools.pairwise(_CHAIN):
        rows[ids[following]][dimension[token]] = 16.0
    ones = struct.pack("<e", 1.0) * WIDTH
    head = WIDTH // _HEADS * _KV_HEADS
    layer = "model.layers.0"
    return {
        "model.embed_tokens.weight": ((len(tokens), WIDTH), embedding),
        "model.norm.weight": ((WIDTH,), ones),
        "lm_head.weight": ((len(tokens), WIDTH), b"".join(map(_row, rows))),
        f"{layer}.input_layernorm.weight": ((WIDTH,), ones),
        f"{layer}.post_attention_layernorm.weight": ((WIDTH,), ones),
        **{
            f"{layer}.{name}.weight": ((height, WIDTH), bytes(2 * height * WIDTH))
            for name, height in (
                ("self_attn.q_proj", WIDTH),
                ("self_attn.k_proj", head),
                ("self_attn.v_proj", head),
                ("self_attn.o_proj", WIDTH),
                ("mlp.gate_proj", WIDTH),
                ("mlp.up_proj", WIDTH),
                ("mlp.down_proj", WIDTH),
            )
        },
    }


def _row(values: dict[int, float]) -> bytes:
    row = bytearray(2 * WIDTH)
    for column, value in values.items():
        struct.pack_into("<e", row, 2 * column, value)
    return bytes(row)


def _safetensors(tensors: dict[str, tuple[tuple[int, ...], bytes]]) -> bytes:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, (shape, data) in tensors.items():
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(data for _, data in tensors.values())


def _sentencepiece(vocabulary: dict[str, int]) -> bytes:
    """ModelProto: 1 = pieces (1 text, 2 score, 3 type), 2 = trainer (3 model type, 35 byte fallback), 3 = normalizer."""
    out = b""
    for number, (piece, kind) in enumerate(vocabulary.items()):
        score = struct.pack("<f", -float(number))
        out += _message(1, _message(1, piece.encode()) + _tag(2, 5) + score + _number(3, kind))
    trainer = _number(3, 2) + _number(4, len(vocabulary)) + _number(35, 1)
    normalizer = _message(1, b"identity") + _number(3, 0) + _number(4, 0) + _number(5, 1)
    return out + _message(2, trainer) + _message(3, normalizer)


def _message(field: int, data: bytes) -> bytes:
    return _tag(field, 2) + _varint(len(data)) + data


def _number(field: int, value: int) -> bytes:
    return _tag(field, 0) + _varint(value)


def _tag(field: int, wire_type: int) -> bytes:
    return _varint(field << 3 | wire_type)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
