"""Tiny real models that sense: one that sees colours and hears sound, one that ranks texts, one that fills a gap.

Built as the self-test model is, but for one attention head whose queries are nothing, so that it looks at all that was
read evenly. The one that senses names the colour that most of its images have (``SEEN``), or ``HEARD`` once there was
sound, or ``NOTHING``; the one that ranks scores a text by how much of it is the word ``LLAMA``; the one that fills says
``FILLED`` behind a fill-in-the-middle prompt. So what an engine was given can be told from what it says.
"""

from __future__ import annotations

import itertools
import math
import struct
import wave
import zlib
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

from llamamgr.models.writer import F32Tensor, Value, gguf_bytes

SEEN = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
HEARD = "a llama hums"
NOTHING = "nothing"
LLAMA = "llama"
FILLED = "in the middle"
IMAGE_TOKENS = 4

_WIDTH, _HEADS, _FEED_FORWARD = 256, 4, 256
_HEAD = _WIDTH // _HEADS
_SENSES = (*SEEN, "sound", LLAMA)  # dimensions 200, 201, … of the residual stream
_FIRST_SENSE = 200
_ASSISTANT = "<|assistant|>"
_FIM = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")
_CONTROL = ("<s>", "</s>", "<|user|>", _ASSISTANT, *_FIM)
_WORDS = (*SEEN, *HEARD.split(" "), NOTHING, *FILLED.split(" "))
_TEMPLATE = (
    "{%- for message in messages -%}<|{{ message.role if message.role == 'assistant' else 'user' }}|>"
    "{{ message.content }}</s>{%- endfor -%}{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}"
)
_SPEAKS, _STARTS, _MATTERS = (
    16.0,
    16.0,
    8.0,
)  # weights of the output matrix: the next word, any first word, what is sensed


def write_sensing(folder: Path) -> None:
    """``sensing.gguf`` with its projector ``mmproj-sensing.gguf`` beside it."""
    (folder / "sensing.gguf").write_bytes(gguf_bytes(_metadata("llama", "sensing"), _tensors(_says())))
    (folder / "mmproj-sensing.gguf").write_bytes(gguf_bytes(_PROJECTOR, _projector_tensors()))


def write_ranking(folder: Path) -> None:
    """``ranking.gguf``, a model with a head for one score: a text of nothing but ``LLAMA`` has the highest."""
    metadata = _metadata("qwen3", "ranking") | {
        "qwen3.pooling_type": 4,
        "qwen3.classifier.output_labels": ["yes", "no"],  # the score is the first one's share
        "qwen3.attention.key_length": _HEAD,
        "qwen3.attention.value_length": _HEAD,
    }
    head = [
        F32Tensor("cls.output.weight", (_WIDTH, 2), _row({_dimension(LLAMA): 0.3}) + _row({})),
        *(F32Tensor(f"blk.0.attn_{which}_norm.weight", (_HEAD,), _ones(_HEAD)) for which in "qk"),
    ]
    (folder / "ranking.gguf").write_bytes(gguf_bytes(metadata, [*_tensors({}), *head]))


def write_filling(folder: Path) -> None:
    """``filling.gguf``, which goes on behind a fill-in-the-middle prompt; its tokens are known by their texts alone."""
    metadata, tensors = _metadata("llama", "filling"), _tensors(_says(start=_FIM[2]))
    (folder / "filling.gguf").write_bytes(gguf_bytes(metadata, tensors))


def picture(colour: str, side: int = 28) -> bytes:
    """A PNG of one colour of ``SEEN``."""
    rows = (b"\0" + bytes(SEEN[colour]) * side) * side
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )


def sound(seconds: float = 0.5) -> bytes:
    """A WAV file of one tone."""
    made = BytesIO()
    with wave.open(made, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        steps = range(int(16_000 * seconds))
        file.writeframes(b"".join(struct.pack("<h", int(9_000 * math.sin(step / 6))) for step in steps))
    return made.getvalue()


def _vocabulary() -> dict[str, int]:
    """Every token's text → its type, in the order of ids."""
    return {
        "<unk>": 2,
        **dict.fromkeys(_CONTROL, 3),
        **dict.fromkeys((f"<0x{value:02X}>" for value in range(256)), 6),
        LLAMA: 4,  # read whole wherever it stands; the words are only said
        **dict.fromkeys(map(_piece, _WORDS), 1),
    }


def _ids() -> dict[str, int]:
    return {token: number for number, token in enumerate(_vocabulary())}


def _piece(word: str) -> str:
    return f"▁{word}"


def _dimension(sense: str) -> int:
    return _FIRST_SENSE + _SENSES.index(sense)


def _token_dimensions() -> dict[str, int]:
    """The tokens that something follows, or that mean something, → their dimension; 0 is for all others."""
    speaking = dict.fromkeys((_ASSISTANT, _FIM[2], *map(_piece, _WORDS)))
    own = {token: number for number, token in enumerate(speaking, start=1)}
    return own | {LLAMA: _dimension(LLAMA)}


def _metadata(architecture: str, name: str) -> dict[str, Value]:
    vocabulary, ids = _vocabulary(), _ids()
    return {
        "general.architecture": architecture,
        "general.type": "model",
        "general.name": name,
        "general.file_type": 0,
        f"{architecture}.context_length": 4096,
        f"{architecture}.embedding_length": _WIDTH,
        f"{architecture}.block_count": 1,
        f"{architecture}.feed_forward_length": _FEED_FORWARD,
        f"{architecture}.attention.head_count": _HEADS,
        f"{architecture}.attention.head_count_kv": 1,
        f"{architecture}.attention.layer_norm_rms_epsilon": 1e-5,
        f"{architecture}.rope.dimension_count": _HEAD,
        f"{architecture}.vocab_size": len(vocabulary),
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": list(vocabulary),
        "tokenizer.ggml.scores": [0.0] * len(vocabulary),
        "tokenizer.ggml.token_type": list(vocabulary.values()),
        "tokenizer.ggml.bos_token_id": ids["<s>"],
        "tokenizer.ggml.eos_token_id": ids["</s>"],
        "tokenizer.ggml.unknown_token_id": ids["<unk>"],
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_space_prefix": False,
        "tokenizer.chat_template": _TEMPLATE,
    }


def _tensors(says: Mapping[str, Mapping[int, float]]) -> list[F32Tensor]:
    """A model of one layer whose attention brings the senses of all that was read to the last token."""
    dimensions, vocabulary = _token_dimensions(), _vocabulary()
    senses = {_dimension(sense): place for place, sense in enumerate(_SENSES)}
    looks = [_row({column: 0.1 for column, place in senses.items() if place == row}) for row in range(_HEAD)]
    brings = [_row({senses[row]: 1.0} if row in senses else {}) for row in range(_WIDTH)]
    return [
        F32Tensor(
            "token_embd.weight",
            (_WIDTH, len(vocabulary)),
            b"".join(_row({dimensions.get(token, 0): 1.0}) for token in vocabulary),
        ),
        F32Tensor("output_norm.weight", (_WIDTH,), _ones(_WIDTH)),
        F32Tensor(
            "output.weight",
            (_WIDTH, len(vocabulary)),
            b"".join(_row(says.get(token, {})) for token in vocabulary),
        ),
        F32Tensor("blk.0.attn_norm.weight", (_WIDTH,), _ones(_WIDTH)),
        _zeros("blk.0.attn_q.weight", _WIDTH, _WIDTH),
        _zeros("blk.0.attn_k.weight", _WIDTH, _HEAD),
        F32Tensor("blk.0.attn_v.weight", (_WIDTH, _HEAD), b"".join(looks)),
        F32Tensor("blk.0.attn_output.weight", (_WIDTH, _WIDTH), b"".join(brings)),
        F32Tensor("blk.0.ffn_norm.weight", (_WIDTH,), _ones(_WIDTH)),
        _zeros("blk.0.ffn_gate.weight", _WIDTH, _FEED_FORWARD),
        _zeros("blk.0.ffn_up.weight", _WIDTH, _FEED_FORWARD),
        _zeros("blk.0.ffn_down.weight", _FEED_FORWARD, _WIDTH),
    ]


def _says(start: str = "") -> dict[str, dict[int, float]]:
    """Token → (dimension → how much that wants the token to come next). Behind ``start`` comes ``FILLED``."""
    dimensions = _token_dimensions()
    wants: dict[str, dict[int, float]] = {token: {} for token in _vocabulary()}
    firsts = {_piece(colour): _dimension(colour) for colour in SEEN} | {
        _piece(HEARD.split(" ")[0]): _dimension("sound")
    }
    for token, sense in firsts.items():
        wants[token] |= {dimensions[_ASSISTANT]: _STARTS, sense: _MATTERS}
    wants[_piece(NOTHING)][dimensions[_ASSISTANT]] = _STARTS + 0.5
    texts = [*SEEN, HEARD, NOTHING, *([FILLED] if start else [])]
    for text in texts:
        tokens = [*map(_piece, text.split(" ")), "</s>"]
        for token, following in itertools.pairwise(tokens):
            wants[following][dimensions[token]] = 2 * _SPEAKS
    if start:
        wants[_piece(FILLED.split(" ")[0])][dimensions[start]] = 2 * _SPEAKS
    return wants


_EYE, _EAR, _MELS = 32, 32, 80
_PROJECTOR: dict[str, Value] = {
    "general.architecture": "clip",
    "general.type": "mmproj",
    "general.name": "sensing",
    "general.file_type": 0,
    "clip.has_vision_encoder": True,
    "clip.has_audio_encoder": True,
    "clip.use_gelu": True,
    "clip.vision.projector_type": "mlp",
    "clip.vision.image_size": 28,
    "clip.vision.patch_size": 14,
    "clip.vision.embedding_length": _EYE,
    "clip.vision.feed_forward_length": _EYE,
    "clip.vision.block_count": 1,  # a projector of this kind leaves the last one out
    "clip.vision.projection_dim": _WIDTH,
    "clip.vision.attention.head_count": 1,
    "clip.vision.attention.layer_norm_epsilon": 1e-5,
    "clip.vision.image_mean": [0.0, 0.0, 0.0],
    "clip.vision.image_std": [1.0, 1.0, 1.0],
    "clip.audio.projector_type": "qwen2a",
    "clip.audio.num_mel_bins": _MELS,
    "clip.audio.embedding_length": _EAR,
    "clip.audio.feed_forward_length": _EAR,
    "clip.audio.block_count": 1,
    "clip.audio.projection_dim": _WIDTH,
    "clip.audio.attention.head_count": 1,
    "clip.audio.attention.layer_norm_epsilon": 1e-5,
}


def _projector_tensors() -> list[F32Tensor]:
    """An eye whose first three values are the mean red, green and blue of a patch, and an ear that hears all as one."""
    patch = 14 * 14
    sees = b"".join(
        struct.pack("<f", 1.0 / patch if channel == output else 0.0) * patch
        for output in range(_EYE)
        for channel in range(3)
    )
    colours = {_dimension(colour): place for place, colour in enumerate(SEEN)}
    shows = [_row({colours[row]: 1.0} if row in colours else {}, _EYE) for row in range(_WIDTH)]
    keeps = [_row({row: 10.0}, _EYE) for row in range(_EYE)]  # far from where GELU bends
    hears = b"".join(struct.pack("<f", 10.0 if row == _dimension("sound") else 0.0) for row in range(_WIDTH))
    return [
        F32Tensor("v.patch_embd.weight", (14, 14, 3, _EYE), sees),
        _zeros("v.position_embd.weight", _EYE, IMAGE_TOKENS),
        *_layer("v", _EYE),
        F32Tensor("mm.0.weight", (_EYE, _EYE), b"".join(keeps)),
        F32Tensor("mm.0.bias", (_EYE,), bytes(4 * _EYE)),
        F32Tensor("mm.2.weight", (_EYE, _WIDTH), b"".join(shows)),
        F32Tensor("mm.2.bias", (_WIDTH,), bytes(4 * _WIDTH)),
        F32Tensor("a.conv1d.1.weight", (3, _MELS, _EAR), bytes(4 * 3 * _MELS * _EAR)),
        F32Tensor("a.conv1d.1.bias", (1, _EAR), bytes(4 * _EAR)),
        F32Tensor("a.conv1d.2.weight", (3, _EAR, _EAR), bytes(4 * 3 * _EAR * _EAR)),
        F32Tensor("a.conv1d.2.bias", (1, _EAR), bytes(4 * _EAR)),
        _zeros("a.position_embd.weight", _EAR, 1500),
        *_layer("a", _EAR),
        F32Tensor("a.post_ln.weight", (_EAR,), _ones(_EAR)),
        F32Tensor("a.post_ln.bias", (_EAR,), bytes(4 * _EAR)),
        _zeros("mm.a.fc.weight", _EAR, _WIDTH),
        F32Tensor("mm.a.fc.bias", (_WIDTH,), hears),
    ]


def _layer(prefix: str, width: int) -> list[F32Tensor]:
    """A layer that adds nothing."""
    matrices = ("attn_q", "attn_k", "attn_v", "attn_out", "ffn_up", "ffn_down")
    biases = ("ln1", "ln2", "attn_q", "attn_v", "attn_out", "ffn_up", "ffn_down")
    return [
        *(_zeros(f"{prefix}.blk.0.{name}.weight", width, width) for name in matrices),
        *(F32Tensor(f"{prefix}.blk.0.{name}.weight", (width,), _ones(width)) for name in ("ln1", "ln2")),
        *(F32Tensor(f"{prefix}.blk.0.{name}.bias", (width,), bytes(4 * width)) for name in biases),
    ]


def _row(values: Mapping[int, float], width: int = _WIDTH) -> bytes:
    row = bytearray(4 * width)
    for column, value in values.items():
        struct.pack_into("<f", row, 4 * column, value)
    return bytes(row)


def _ones(count: int) -> bytes:
    return struct.pack("<f", 1.0) * count


def _zeros(name: str, width: int, rows: int) -> F32Tensor:
    return F32Tensor(name, (width, rows), bytes(4 * width * rows))
