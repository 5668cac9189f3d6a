"""What a GGUF header tells: the kind of file, architecture, quantisation, sizes, capabilities.

Keys and rules: src/llama-arch.cpp, src/llama-model-loader.cpp and common/download.cpp of llama.cpp b11434; the words of
``capabilities`` and their order are Ollama's.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Literal

import msgspec

from llamamgr.core.cards import ModelKind
from llamamgr.core.gguf import Header
from llamamgr.core.quants import FILE_TYPES, split_quant

FileKind = ModelKind | Literal["part"]

_PART_NAME = re.compile(r"-(\d{5})-of-(\d{5})\Z")
_DRAFT_NAME = re.compile(r"(mtp|eagle3|dflash|dspark)-", re.IGNORECASE)
_POOLING_RANK = 4
_BERTS = (
    "bert",
    "modern-bert",
    "nomic-bert",
    "nomic-bert-moe",
    "neo-bert",
    "jina-bert-v2",
    "jina-bert-v3",
    "eurobert",
)
ENCODERS = frozenset((*_BERTS, "t5encoder", "gemma-embedding"))
_FIM_KEYS = ("tokenizer.ggml.fim_pre_token_id", "tokenizer.ggml.prefix_token_id")
_FIM_PREFIXES = (
    *("<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>"),
    *("<PRE>", "▁<PRE>", "<|code_prefix|>", "<|prefix|>"),
)
# as elements of an array of strings, each after its length
_FIM_TOKENS = tuple(len(text).to_bytes(8, "little") + text for text in map(str.encode, _FIM_PREFIXES))
_THINKING_MARKS = ("enable_thinking", "<think>", "reasoning_content", "reasoning_effort")


class Split(msgspec.Struct, frozen=True):
    """One part of a split model; ``index`` counts from 0."""

    index: int
    count: int


def architecture(header: Header) -> str:
    return header.text("general.architecture")


def kind(header: Header, stem: str = "") -> FileKind:
    """What the file is for; ``stem`` is its name without ``.gguf``. A later part of a split model is a ``part``."""
    arch, declared = architecture(header), header.text("general.type")
    if declared == "imatrix" or (not arch and "imatrix.chunk_count" in header.metadata):
        return "imatrix"
    if declared == "adapter" or "adapter.type" in header.metadata:
        return "adapter"
    if arch == "controlvector":
        return "control-vector"
    if arch == "clip" or declared == "mmproj":
        return "projector"
    part = split(header, stem)
    if part and part.index:
        return "part"
    if _DRAFT_NAME.match(stem):
        return "draft"
    return "model" if header.tensors or part else "vocabulary"


def split(header: Header, stem: str = "") -> Split | None:
    """Which part of how many, by the header's keys and else by the file's name; None for a whole model."""
    count = header.number("split.count")
    if count > 1:
        return Split(header.number("split.no"), count)
    named = _PART_NAME.search(stem)
    return Split(int(named[1]) - 1, int(named[2])) if named and int(named[2]) > 1 else None


def part_base(stem: str) -> str:
    """A file name without ``.gguf`` and without its part number."""
    return _PART_NAME.sub("", stem)


def parameters(header: Header) -> int:
    """Count of weights in this file; a split model's is the sum over its parts."""
    return sum(tensor.elements for tensor in header.tensors)


def quant(header: Header, stem: str = "") -> str:
    """The quantisation's name: the file name's tag (``UD-Q4_K_XL``), else the file type, else the commonest type."""
    tag = split_quant(part_base(stem))[1]
    if tag:
        return tag
    file_type = FILE_TYPES.get(header.number("general.file_type", -1))
    if file_type:
        return file_type
    weighty: Counter[str] = Counter(tensor.type.name for tensor in header.tensors if len(tensor.shape) > 1)
    return max(weighty, key=lambda name: weighty[name], default="")


def context_length(header: Header) -> int:
    """Trained context in tokens; 0 when the file does not say."""
    return header.number(f"{architecture(header)}.context_length")


def embedding_length(header: Header) -> int:
    """Width of the residual stream; of a projector, the width that it projects to."""
    if architecture(header) == "clip":
        vision = header.number("clip.vision.projection_dim")
        return vision or header.number("clip.audio.projection_dim") or header.number("clip.projection_dim")
    return header.number(f"{architecture(header)}.embedding_length")


def block_count(header: Header) -> int:
    return header.number(f"{architecture(header)}.block_count")


def chat_template(header: Header) -> str:
    """The default template's text, or the one for tools when it is the only one."""
    default = header.text("tokenizer.chat_template")
    return default or header.text("tokenizer.chat_template.tool_use")


def is_embedding(header: Header) -> bool:
    """Whether the model gives vectors instead of text: a pooling type is set or it is an encoder."""
    arch = architecture(header)
    return header.number(f"{arch}.pooling_type") > 0 or arch in ENCODERS


def is_reranker(header: Header) -> bool:
    arch = architecture(header)
    return (
        header.number(f"{arch}.pooling_type") == _POOLING_RANK
        or f"{arch}.classifier.output_labels" in header.metadata
    )


def capabilities(header: Header, raw: bytes = b"") -> tuple[str, ...]:
    """Ollama's words for what the model can do, by its template's text and its tokens; ``raw`` are the header's bytes.

    llama.cpp knows better once it has run the template (``/props``); before a load the text has to do. ``rerank``
    is a word of ours: Ollama has no such models. Many files do not say which tokens begin a gap to be filled:
    llama.cpp knows them by their texts (source: src/llama-vocab.cpp), and so they are looked for here.
    """
    if is_reranker(header):
        return ("rerank",)
    if is_embedding(header):
        return ("embedding",)
    template = chat_template(header) + header.text("tokenizer.chat_template.tool_use")
    found = {
        "tools": "tools" in template or "tool_calls" in template,
        "thinking": any(mark in template for mark in _THINKING_MARKS),
        "completion": True,
        "insert": any(key in header.metadata for key in _FIM_KEYS)
        or any(mark in raw for mark in _FIM_TOKENS),
    }
    return tuple(word for word, present in found.items() if present)


def projector_capabilities(header: Header) -> tuple[str, ...]:
    """What a projector adds to a model: ``vision``, ``audio``. Old files that say neither are for vision."""
    audio = header.metadata.get("clip.has_audio_encoder") is True
    vision = header.metadata.get("clip.has_vision_encoder", not audio) is True
    return ("vision",) * vision + ("audio",) * audio
